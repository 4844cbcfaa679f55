"""What becomes of a deployable's image encoder when the deployable changes its precision: it goes along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx import ModelProto, TensorProto

from irforge.artifact import load_model, save_model
from irforge.calib.cast import cast_to_half
from irforge.calib.islands import fp32_islands
from irforge.calib.tables import PassReport
from irforge.contract import Contract
from irforge.files import refuse_overwriting, replacing, sha256_of_file
from irforge.graph import Graph
from irforge.rescoring import companion_beside
from irforge.runtime.rescoring import companion_file, companion_of


@contextmanager
def carried(
    contract: Contract, source: Path, output: Path, *, half: bool
) -> Iterator[tuple[Contract, PassReport | None]]:
    """The contract for what is made of the deployable `source` at `output`, and what was done to its companion.

    With `half` an FP32 encoder is cast to FP16, but for its normalisers, the L2 norm of its features and what
    becomes of the cosines.
    Otherwise it is left where it lies, or copied where `output` lies in another folder. Its file appears with the end
    of the block, and not at all if that raises.

    Raises:
        ArtifactError: the companion is missing, or another file than the contract names.
        UsageError: its new file would take the place of the old one.
    """
    named = companion_of(contract)
    if named is None:
        yield contract, None
        return
    path, target = companion_file(named, source.parent), companion_beside(output)
    model = load_model(path) if half else None
    if model is not None and _is_half(model):
        model = None
    if model is None and source.parent.resolve() == output.parent.resolve():
        yield contract, None
        return
    refuse_overwriting([target], [path])
    with replacing(target) as temporary:
        report = None
        if model is None:
            shutil.copyfile(path, temporary)
        else:
            report = _cast(model, path, target)
            save_model(temporary, model)
        changed = named.model_copy(update={"path": target.name, "sha256": sha256_of_file(temporary)})
        yield contract.model_copy(update={"companions": [changed]}), report


def _is_half(model: ModelProto) -> bool:
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)


def _cast(model: ModelProto, path: Path, target: Path) -> PassReport:
    islands = fp32_islands(model, compares=True)
    order = [node.output[0] for node in Graph(model).nodes]
    count = cast_to_half(model, islands)
    return PassReport(
        model=path,
        output=target,
        half=count.half,
        float_nodes=count.kept,
        casts=count.casts,
        islands=[islands[name] for name in order if name in islands],
        measured=False,
    )
