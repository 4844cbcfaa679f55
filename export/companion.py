"""An image encoder that re-scores detections as a graph of its own, and its place in a deployable's contract."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from pydantic import ValidationError

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.contract import Companion, Contract
from irforge.errors import ArtifactError, CheckFailed, UsageError
from irforge.export.convert import onnx_from_part
from irforge.export.verify import TOLERANCE
from irforge.files import sha256_of_file
from irforge.rescoring import METADATA_KEY, OUTPUT, ROLE, Array, RescoringSpec
from irforge.runtime.backends.ort import OrtSession
from irforge.train.rescoring.fusion import TorchRescorer


def onnx_from_rescorer(rescorer: TorchRescorer, *, opset: int = 20) -> ModelProto:
    """The encoder, its table and the fusion as one FP32 graph; its metadata holds what the host has to do.

    Inputs are those of `irforge.rescoring.Rescorer`'s `score`: the number of boxes is free, and so are the frame's
    sides in multiples of the stride. Output `rescored`, float32 [n].

    Raises:
        UsageError, ExportError: see `irforge.export.convert.onnx_from_part`.
        CheckFailed: the graph does not compute what the module computes.
    """
    spec = rescorer.spec
    feeds = example_feeds(rescorer, 2)
    inputs = {name: torch.from_numpy(feed) for name, feed in feeds.items()}
    name = f"rescore_{spec.method}"
    model, _ = onnx_from_part(rescorer.module, inputs, [OUTPUT], name, free=_free_sides(spec), opset=opset)
    model.metadata_props.add(key=METADATA_KEY, value=spec.model_dump_json())
    difference = largest_difference(model, rescorer)
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"the exported encoder's scores differ by {difference:.3g} from torch's (limit {TOLERANCE:g})",
            "This is a defect of irforge, not of the model: nothing was written",
        )
    return model


def example_feeds(
    rescorer: TorchRescorer, boxes: int, sides: tuple[int, int] = (2, 3), seed: int = 0
) -> dict[str, Array]:
    """What the encoder gets for random boxes of a random frame of `sides` (height, width) times 32 pixels or a crop."""
    rng = np.random.default_rng(seed)
    unit = rescorer.spec.stride or rescorer.spec.crop_size or 0
    height, width = (side * unit for side in sides)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    low = rng.uniform(0, 0.5, (boxes, 2)) * (width, height)
    high = low + rng.uniform(0.1, 0.5, (boxes, 2)) * (width, height)
    pixels = rescorer.pixels(image, np.concatenate([low, high], axis=1).astype(np.float32))
    classes = rng.integers(0, len(rescorer.spec.classes), boxes, np.int64)
    return {**pixels, "scores": rng.uniform(0.1, 1, boxes).astype(np.float32), "classes": classes}


def largest_difference(model: ModelProto, rescorer: TorchRescorer) -> float:
    """Largest absolute difference of a score between ONNX Runtime and torch, over one, two and seven boxes."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "companion.onnx"
        save_model(path, model)
        with OrtSession(path) as session:
            for boxes, sides in ((1, (1, 1)), (2, (3, 2)), (7, (2, 4))):
                feeds = example_feeds(rescorer, boxes, sides, boxes)
                with torch.no_grad():
                    expected = rescorer.module(**{name: torch.from_numpy(feed) for name, feed in feeds.items()}).numpy()
                difference = float(np.abs(np.asarray(session.run(feeds)[OUTPUT]) - expected).max())
                # A NaN must not lose the comparison.
                worst = difference if not difference <= worst else worst
    return worst


def read_spec(path: str | os.PathLike[str]) -> RescoringSpec:
    """What a companion's metadata says it does.

    Raises:
        ArtifactError: the file cannot be read, or is no companion.
    """
    texts = [entry.value for entry in load_model(path).metadata_props if entry.key == METADATA_KEY]
    try:
        return RescoringSpec.model_validate_json(texts[0])
    except (IndexError, ValidationError):
        raise ArtifactError(
            f"'{os.fspath(path)}' is no companion that re-scores", "Make one with 'irforge rescore'"
        ) from None


def with_companion(contract: Contract, primary: Path, companion: Path, **window: Any) -> Contract:
    """A copy of a deployable's contract that names the companion, in place of one that re-scored before.

    Args:
        primary: where the deployable lies or will lie; the companion lies in the same folder or below.
        window: `limit`, `lower` or `upper` instead of the companion's: what the host alone decides by.

    Raises:
        UsageError: it lies elsewhere, or the deployable gives masks.
        ArtifactError: it is no companion, or one for other classes.
    """
    if contract.output.kind != "boxes":
        raise UsageError("re-scoring judges boxes, and this detector gives masks")
    try:
        inside = companion.resolve().relative_to(primary.resolve().parent)
    except ValueError:
        raise UsageError(
            f"'{companion}' lies outside the folder of '{primary}'", "Put it beside the deployable"
        ) from None
    spec = RescoringSpec.model_validate(read_spec(companion).model_dump() | window)
    if spec.classes != contract.output.classes:
        raise ArtifactError(
            f"'{companion}' is for the classes {', '.join(spec.classes)}, the detector has"
            f" {', '.join(contract.output.classes)}",
            "Make it for this detector",
        )
    named = Companion(
        role=ROLE,
        path=inside.as_posix(),
        sha256=sha256_of_file(companion),
        input=spec.input,
        constants=spec.model_dump(mode="json"),
    )
    others = [other for other in contract.companions if other.role != ROLE]
    return contract.model_copy(update={"companions": [*others, named]}).with_step(
        "rescore", method=spec.method, encoder=spec.source.get("encoder"), companion_sha256=named.sha256
    )


def attach(primary: Path, companion: Path, output: Path | None = None, **window: Any) -> Contract:
    """Name a companion in a deployable's contract, in the file itself or in a copy at `output`.

    Raises:
        see `with_companion`.
    """
    model = load_model(primary)
    contract = with_companion(read_contract(model, primary), output or primary, companion, **window)
    embed_contract(model, contract)
    save_model(output or primary, model)
    return contract


def _free_sides(spec: RescoringSpec) -> tuple[dict[int, Any], ...]:
    boxes = torch.export.Dim("N")
    if spec.stride is None:
        return {0: boxes}, {0: boxes}, {0: boxes}
    height, width = torch.export.Dim("h", max=256), torch.export.Dim("w", max=256)
    frame = {2: spec.stride * height, 3: spec.stride * width}
    return frame, {0: boxes, 1: height}, {0: boxes, 1: width}, {0: boxes}, {0: boxes}
