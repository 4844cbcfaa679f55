"""Give a detector a second opinion: `python export/rescore.py MODEL.onnx -o OUT.onnx`, or `irforge rescore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting

if TYPE_CHECKING:
    from irforge.contract import Contract
    from irforge.train.rescoring.fusion import TorchRescorer

METHODS = ("clip", "efficientnet-lite0", "resnet")


def rescore(
    model: Annotated[Path, typer.Argument(help="A deployable that gives boxes (.onnx).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Its copy; the encoder goes beside, *.rescore.onnx.")],
    by: Annotated[
        str, typer.Option(help="clip (names of classes), efficientnet-lite0 or resnet (PCB: support boxes).")
    ] = "",
    companion: Annotated[
        Path | None, typer.Option(help="Instead: a companion made before, in the same folder.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The encoder's checkpoint; only Lite0 has a package.")] = None,
    trust: Annotated[bool, typer.Option(help="Load a pickled checkpoint. It can run any code.")] = False,
    support: Annotated[str, typer.Option(metavar="DATA", help="PCB: the shots, NAME[:SPLIT] or a path.")] = "",
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="CLIP: a text with {}. [default: a photo of {}]")] = None,
    preprocess: Annotated[str, typer.Option(help="CLIP: clip, or reference as RISF's code does.")] = "clip",
    judge: Annotated[str, typer.Option(metavar="NAMES", help="Classes to judge again, by comma; default all.")] = "",
    alpha: Annotated[
        list[str] | None, typer.Option(metavar="X|NAME=X", help="The detector's share. [default: 0.7, PCB 0.5]")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many boxes a frame.")] = 20,
    lower: Annotated[float, typer.Option(min=0, max=1, help="Scores up to this keep.")] = 0.05,
) -> None:
    """Have an image encoder judge a detector's boxes again: CM-CLIP or PCB, as a second graph beside it."""
    from irforge.artifact import read_contract, save_model
    from irforge.datasets import dataset_paths
    from irforge.export.companion import attach, onnx_from_rescorer
    from irforge.rescoring import companion_beside
    from irforge.train.rescoring.fusion import parse_alpha

    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    if bool(by) == bool(companion):
        raise UsageError("either --by makes a companion, or --companion names one", f"Methods: {', '.join(METHODS)}")
    encoder = companion_beside(output) if companion is None else None
    shots = dataset_paths(support, data_root) if support else []
    refuse_overwriting([output, encoder], [model, companion, weights, *shots])
    contract = read_contract(model)
    if companion is None:
        if contract.output.kind != "boxes":
            raise UsageError("re-scoring judges boxes, and this detector gives masks")
        options: dict[str, Any] = {"limit": limit, "lower": lower, "judged": judge.split(",") if judge else None}
        if alpha:
            options["alpha"] = parse_alpha(alpha)
        if by == "clip":
            rescorer = _by_names(contract, weights, trust, prompt, preprocess, options)
        else:
            rescorer = _by_support(contract, by, weights, trust, support, data_root, options)
        companion = companion_beside(output)
        save_model(companion, onnx_from_rescorer(rescorer))
    attach(model, companion, output, limit=limit, lower=lower)
    typer.echo(f"{output} with {companion.name}: at most {limit} boxes a frame")


def _by_names(
    contract: Contract, weights: Path | None, trust: bool, prompts: Sequence[str] | None, preprocess: str, options: Any
) -> TorchRescorer:
    from irforge.files import sha256_of_file
    from irforge.train.rescoring.clip import SOURCE, load_clip
    from irforge.train.rescoring.cm_clip import PROMPT, clip_rescorer

    if preprocess not in ("clip", "reference"):
        raise UsageError(f"there is no preprocessing '{preprocess}'", "There are: clip, reference")
    if weights is None:
        raise UsageError("CLIP needs a checkpoint", f"Give with --weights the path of {SOURCE}")
    return clip_rescorer(
        load_clip(weights, trust=trust),
        contract.output.classes,
        prompts=prompts or (PROMPT,),
        preprocess="reference" if preprocess == "reference" else "clip",
        source={"encoder": weights.name, "weights_sha256": sha256_of_file(weights)},
        **options,
    )


def _by_support(
    contract: Contract, by: str, weights: Path | None, trust: bool, support: str, data_root: Path | None, options: Any
) -> TorchRescorer:
    from irforge.datasets import open_dataset
    from irforge.train.rescoring.encoders import load_encoder
    from irforge.train.rescoring.pcb import pcb_rescorer
    from irforge.train.rescoring.support import support_boxes

    if by not in METHODS:
        raise UsageError(f"there is no method '{by}'", f"Methods: {', '.join(METHODS)}")
    if not support:
        raise UsageError("PCB compares with support boxes, and there are none", "Give them with --support DATA")
    encoder, digest = load_encoder(by, weights, trust=trust)
    shots = support_boxes(open_dataset(support, data_root), contract)
    source = {"encoder": by, "weights_sha256": digest, "support": support}
    return pcb_rescorer(encoder, shots, contract.output.classes, source=source, **options)


if __name__ == "__main__":
    run_command(rescore)
