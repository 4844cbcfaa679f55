"""The image encoder that re-scores a deployable's boxes, compiled along with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from irforge.contract import Contract
from irforge.files import replacing
from irforge.rescoring import RescoringSpec, companion_beside
from irforge.runtime.compilers.request import Shape
from irforge.runtime.engines import BuildOptions, Profile, Work, backend_of, check_graph, compile_engine, targets_for
from irforge.runtime.rescoring import companion_file, companion_of, spec_of
from irforge.runtime.sidecar import EngineRecord

LARGEST_FRAME = (1024, 1280)
"""Height and width up to which an engine that encodes whole frames takes them, unless the detector's are larger."""


@contextmanager
def compiled(
    contract: Contract, model: Path, output: Path, options: BuildOptions
) -> Iterator[tuple[Contract, list[EngineRecord]]]:
    """The contract of an engine at `output`, and the record of its companion's engine, if it names one.

    That engine appears with the end of the block, and not at all if it raises. `options.require` is the detector's.

    Raises:
        ArtifactError: the companion is missing, or another file than the contract names.
        BuildError, EnvironmentFault: see `irforge.runtime.engines.build_engine`.
    """
    named = companion_of(contract)
    if named is None:
        yield contract, []
        return
    source, target, backend = companion_file(named, model.parent), companion_beside(output), backend_of(output)
    profile = profile_of(spec_of(named, contract), contract)
    loaded, warnings = check_graph(source, backend)
    work = Work(source, target, backend, targets_for(backend, options), loaded, tuple(warnings), profile)
    tuned = {name: shape for name, (_, shape, _) in profile.items()}
    with replacing(target) as temporary:
        record = compile_engine(work, temporary, tuned, replace(options, custom_ops="body", require={}))
        changed = named.model_copy(update={"path": target.name, "sha256": record.engine_sha256})
        yield contract.model_copy(update={"companions": [changed]}), [record]


def profile_of(spec: RescoringSpec, contract: Contract) -> Profile:
    """Least, tuned-for and greatest shape of an encoder's inputs: one box up to as many as a frame may have re-scored,
    which it is tuned for; and whole frames from one stride up to `LARGEST_FRAME`, tuned for the detector's size."""
    slots = next(tensor.shape[1] for tensor in contract.output.tensors if tensor.name == "scores")
    assert isinstance(slots, int)
    most = min(slots, spec.limit or slots)
    counts = (1, most, most)
    shapes: dict[str, list[Shape]] = {"scores": [(n,) for n in counts], "classes": [(n,) for n in counts]}
    if spec.crop_size is not None:
        shapes["crops"] = [(n, 3, spec.crop_size, spec.crop_size) for n in counts]
    else:
        assert spec.stride is not None
        tuned = tuple(-(-side // spec.stride) for side in contract.input.size)
        largest = tuple(max(cells, -(-side // spec.stride)) for cells, side in zip(tuned, LARGEST_FRAME, strict=True))
        cells = ((1, 1), tuned, largest)
        shapes["frame"] = [(1, 3, height * spec.stride, width * spec.stride) for height, width in cells]
        for axis, name in enumerate(("row_weights", "column_weights")):
            shapes[name] = [(n, some[axis]) for n, some in zip(counts, cells, strict=True)]
    return {name: (least, middle, greatest) for name, (least, middle, greatest) in shapes.items()}
