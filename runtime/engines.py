"""From an ONNX file to an engine with its sidecar, through every gate that a graph has to pass."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import irforge
from irforge.artifact import load_model, read_contract
from irforge.contract import Contract, Range
from irforge.errors import ArtifactError, BuildError, EnvironmentFault, UsageError
from irforge.files import replacing, sha256_of_file
from irforge.ops import count_custom_ops
from irforge.runtime.backends.device import gpus
from irforge.runtime.compilers.child import compile_in_child
from irforge.runtime.compilers.request import Backend, BuildRequest, BuildResult, Shape
from irforge.runtime.compilers.targets import DEFAULT_TARGETS, RTX_TARGETS, without_rtx
from irforge.runtime.compilers.trtexec import trtexec_commands
from irforge.runtime.custom_ops import Life, live, native_library
from irforge.runtime.plan import PlanReport, read_plan
from irforge.runtime.proof import check_requirement
from irforge.runtime.sidecar import (
    LOADERS,
    EngineRecord,
    Plugin,
    RuntimeKind,
    Sidecar,
    Source,
    sidecar_path,
    this_platform,
)

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIXES: dict[str, Backend] = {".rtx.engine": "tensorrt_rtx", ".engine": "tensorrt"}
_RUNTIMES: dict[Backend, RuntimeKind] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_TURING = "7.5"
_LOG_LINES = 20

Profile = dict[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True)
class BuildOptions:
    """How to compile. `targets` are compute capabilities: empty takes this GPU, or without one the five common ones.

    `batch` is least, tuned-for and greatest batch of a graph whose batch is free. `custom_ops` says whether irforge's
    operators become their bodies or plugins, see `irforge.runtime.custom_ops`. `require` is the least share of
    convolution MACs by precision, see `irforge.runtime.proof.parse_requirement`.
    """

    targets: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 1)
    custom_ops: Life = "body"
    timing_cache: Path | None = None
    workspace_bytes: int | None = None
    require: Mapping[str, float] = field(default_factory=dict)


def build_engine(model: str | os.PathLike[str], output: str | os.PathLike[str], options: BuildOptions) -> Sidecar:
    """Compile an ONNX file; the engine and its sidecar appear together, or neither does.

    The backend follows from the suffix of `output`: `.rtx.engine` is TensorRT-RTX, `.engine` TensorRT.

    Raises:
        UsageError: targets, batch or suffix do not fit together.
        ArtifactError: the file is damaged, unsafe or has no contract.
        BuildError: lint, ONNX Runtime, NVIDIA's parser or its compiler refuses the graph; the message says which.
        EnvironmentFault: the compiler, or the GPU that it needs, is not here.
        CheckFailed: the engine computes less in a precision than `options.require` asks for.
    """
    from irforge.runtime.companions import compiled

    backend = backend_of(output)
    targets = targets_for(backend, options)
    contract = read_contract(model)
    loaded, warnings = check_graph(model, backend)
    profile = profile_of(loaded, contract, options.batch)
    work = Work(Path(model), Path(output), backend, targets, loaded, tuple(warnings), profile)
    with compiled(contract, work.model, work.output, options) as (deployed, companions), replacing(output) as temporary:
        record = compile_engine(work, temporary, _tuned_shapes(contract, profile), options)
        sidecar = Sidecar(**dict(record), contract=deployed, companions=companions)
        # First the sidecar: an engine that its sidecar does not know is refused, the other way round it would load.
        with replacing(sidecar_path(output)) as beside:
            beside.write_text(sidecar.model_dump_json(by_alias=True, indent=2) + "\n")
    return sidecar


@dataclass(frozen=True)
class Work:
    """A graph that passed the gates before the compiler, and what becomes of it."""

    model: Path
    output: Path
    backend: Backend
    targets: tuple[str, ...]
    graph: ModelProto
    warnings: tuple[str, ...]
    profile: Profile


def compile_engine(work: Work, plan: Path, tuned: dict[str, Shape], options: BuildOptions) -> EngineRecord:
    """Compile to the file `plan`, which becomes `work.output` only after this; `tuned` are shapes to read the plan at.

    Raises:
        see `build_engine`.
    """
    library = _plugin_library(work.backend, options.custom_ops)
    names = tuple(sorted(count_custom_ops(work.graph)))
    life = live(work.graph, options.custom_ops, work.model)
    request = BuildRequest(
        backend=work.backend,
        onnx=str(work.model),
        plan=str(plan),
        targets=work.targets,
        profile=work.profile,
        timing_cache=str(options.timing_cache) if options.timing_cache else None,
        workspace_bytes=options.workspace_bytes,
        plugin_library=str(library) if library else None,
        plugins=names if library else (),
    )
    result, log, skipped = _compile(work.graph, request)
    report = PlanReport(result.proofs, (), result.proof_unavailable)
    if work.backend == "tensorrt_rtx":
        report = read_plan(plan, tuned)
    check_requirement(list(report.proofs), dict(options.require), str(work.output))
    return EngineRecord(
        engine=work.output.name,
        engine_sha256=sha256_of_file(plan),
        engine_bytes=plan.stat().st_size,
        **_runtime_facts(work.backend, result),
        skipped_targets=skipped,
        notes=[
            *work.warnings,
            *_notes(work.graph, report, result.compute_capabilities),
            *_not_for_here(work.backend),
        ],
        onnx=Source(name=work.model.name, sha256=sha256_of_file(work.model)),
        profile={name: [list(shape) for shape in bounds] for name, bounds in work.profile.items()},
        proofs=list(report.proofs),
        proof_unavailable=report.reason,
        custom_ops=life,
        plugins=[Plugin(name=library.name, sha256=sha256_of_file(library))] if library else [],
        trtexec=_trtexec(work.model, work.output, work.profile, options, library),
        build_log_tail=log[-_LOG_LINES:],
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _runtime_facts(backend: Backend, result: BuildResult) -> dict[str, Any]:
    runtime = _RUNTIMES[backend]
    return {
        "runtime": runtime,
        "loaders": LOADERS[runtime],
        "runtime_version": result.version,
        "irforge_version": irforge.__version__,
        "platform": this_platform(),
        "compute_capabilities": list(result.compute_capabilities),
        "device": result.device,
        "build_seconds": round(result.seconds, 3),
    }


def _trtexec(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    profile: Profile,
    options: BuildOptions,
    library: Path | None,
) -> dict[str, str]:
    plain = os.fspath(output).removesuffix(".rtx.engine").removesuffix(".engine") + ".engine"
    cache = str(options.timing_cache) if options.timing_cache else None
    return trtexec_commands(
        os.fspath(model),
        plain,
        profile,
        timing_cache=cache,
        workspace_bytes=options.workspace_bytes,
        plugin_library=str(library) if library else None,
    )


def _plugin_library(backend: Backend, life: Life) -> Path | None:
    if life == "body":
        return None
    if backend == "tensorrt_rtx":
        raise UsageError("TensorRT-RTX takes no plugins", "Build *.engine with TensorRT, or leave out --custom-ops")
    return native_library("tensorrt")


def compile_gate(model: str | os.PathLike[str], targets: tuple[str, ...] = DEFAULT_TARGETS) -> PlanReport:
    """Put a graph through NVIDIA's parser and compiler without keeping the engine.

    Raises:
        see `build_engine`.
    """
    loaded, _ = check_graph(model, "tensorrt_rtx")
    contract = read_contract(model)
    profile = profile_of(loaded, contract, (1, 1, 1))
    return gate(loaded, targets, profile, _tuned_shapes(contract, profile))[0]


def gate(
    model: ModelProto, targets: tuple[str, ...], profile: Profile, tuned: dict[str, Shape]
) -> tuple[PlanReport, dict[str, str]]:
    """Compile a checked graph for TensorRT-RTX, and keep what its plan says and why a target was skipped."""
    with tempfile.TemporaryDirectory(prefix="irforge-gate-") as folder:
        plan = str(Path(folder) / "gate.rtx.engine")
        request = BuildRequest(backend="tensorrt_rtx", onnx="", plan=plan, targets=targets, profile=profile)
        _, _, skipped = _compile(model, request)
        return read_plan(plan, tuned), skipped


def backend_of(output: str | os.PathLike[str]) -> Backend:
    """The backend whose engines have this suffix.

    Raises:
        UsageError: it is no suffix of an engine.
    """
    for suffix, backend in SUFFIXES.items():
        if os.fspath(output).endswith(suffix):
            return backend
    raise UsageError(f"'{output}' must end in .engine (TensorRT) or .rtx.engine (TensorRT-RTX)")


def check_graph(model: str | os.PathLike[str], backend: Backend) -> tuple[ModelProto, list[str]]:
    """The gates before the compiler: safe loading and onnx.checker, lint, and ONNX Runtime.

    Returns:
        the loaded model, and lint's warnings.

    Raises:
        ArtifactError: the file is damaged or unsafe.
        BuildError: lint or ONNX Runtime refuses the graph.
    """
    from irforge.lint import LintTarget, lint
    from irforge.runtime.backends.ort import OrtSession

    loaded = load_model(model)
    target = LintTarget("TensorRT-RTX", (11, 0), is_rtx=True) if backend == "tensorrt_rtx" else None
    warnings = []
    for finding in lint(loaded, target):
        if finding.level == "error":
            raise BuildError(f"lint refuses '{model}' at {finding.where}: {finding.what}", finding.mend)
        warnings.append(f"{finding.where}: {finding.what}. {finding.mend}")
    try:
        OrtSession(model, threads=1).close()
    except ArtifactError as error:
        raise BuildError(f"the gate before the compiler refuses the graph: {error.what}", error.remedy) from None
    return loaded, warnings


def profile_of(model: ModelProto, contract: Contract, batch: tuple[int, int, int]) -> Profile:
    """Least, tuned-for and greatest shape of the input where the graph leaves sizes free; empty where it does not.

    Raises:
        UsageError: the batch bounds are out of order, or the graph's batch is fixed at another size.
        ArtifactError: the graph has not the contract's input.
    """
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise UsageError(f"--batch needs 1 <= min <= opt <= max, not {batch[0]},{batch[1]},{batch[2]}")
    initializers = {tensor.name for tensor in model.graph.initializer}
    found = [value for value in model.graph.input if value.name not in initializers]
    if [value.name for value in found] != [contract.input.name]:
        names = ", ".join(f"'{value.name}'" for value in found)
        raise ArtifactError(f"the graph takes {names or 'nothing'}, its contract says '{contract.input.name}'")
    dims = found[0].type.tensor_type.shape.dim
    sides = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    if len(sides) != 4:
        raise ArtifactError(f"input '{contract.input.name}' has {len(sides)} dimensions, frames have 4 (N, C, H, W)")
    if sides[0] is not None and any(size != sides[0] for size in batch):
        raise UsageError(f"the graph's batch is fixed at {sides[0]}", "Leave --batch away, or export with a free batch")
    if None not in sides:
        return {}
    bounds = zip(batch, _bounds(contract.input.height), _bounds(contract.input.width), strict=True)
    shapes = [(n if sides[0] is None else sides[0], contract.input.channels, h, w) for n, h, w in bounds]
    return {contract.input.name: (shapes[0], shapes[1], shapes[2])}


def _bounds(side: int | Range) -> tuple[int, int, int]:
    return (side.min, side.opt, side.max) if isinstance(side, Range) else (side, side, side)


def _tuned_shapes(contract: Contract, profile: Profile) -> dict[str, Shape]:
    fixed = {contract.input.name: (1, contract.input.channels, *contract.input.size)}
    return {**fixed, **{name: tuned for name, (_, tuned, _) in profile.items()}}


def _not_for_here(backend: Backend) -> list[str]:
    here = gpus()[0].compute_capability if gpus() else ""
    generation = without_rtx(here)
    if backend != "tensorrt_rtx" or not generation:
        return []
    return [f"this plan does not run on the GPU here, SM {here} ({generation}): build it with TensorRT, -o NAME.engine"]


def targets_for(backend: Backend, options: BuildOptions) -> tuple[str, ...]:
    """The compute capabilities to compile for.

    Raises:
        UsageError: a backend cannot do what the options ask.
        EnvironmentFault: TensorRT without a GPU.
    """
    here = gpus()[0].compute_capability if gpus() else None
    if backend == "tensorrt_rtx":
        if options.timing_cache:
            raise UsageError("TensorRT-RTX compiles without measuring and takes no timing cache", "Leave it away")
        return options.targets or ((here,) if here in RTX_TARGETS else DEFAULT_TARGETS)
    if here is None:
        raise EnvironmentFault(
            "TensorRT builds on the GPU that the engine is for, and this machine has none",
            "Build a TensorRT-RTX engine ahead of time instead: -o NAME.rtx.engine",
        )
    if options.targets and options.targets != (here,):
        raise UsageError(
            f"TensorRT builds for the GPU at hand, SM {here}", "Leave --sm away, or use -o NAME.rtx.engine"
        )
    return (here,)


def _compile(model: ModelProto, request: BuildRequest) -> tuple[BuildResult, list[str], dict[str, str]]:
    """Compile what was checked, not what the path may meanwhile hold; without Turing if only Turing refuses."""
    with tempfile.TemporaryDirectory(prefix="irforge-onnx-") as folder:
        onnx = Path(folder) / "checked.onnx"
        onnx.write_bytes(model.SerializeToString())
        checked = request.model_copy(update={"onnx": str(onnx)})
        try:
            result, log = compile_in_child(checked)
        except BuildError as error:
            others = tuple(target for target in request.targets if target != _TURING)
            if "SM75" not in error.what or others == request.targets:
                raise
            reason = f"{error.what}; use 1x1 convolutions for linear layers, or an FP16 graph"
            if not others:
                raise BuildError(error.what, "Use 1x1 convolutions for linear layers, or an FP16 graph") from None
            result, log = compile_in_child(checked.model_copy(update={"targets": others}))
            return result, log, {_TURING: reason}
    return result, log, {}


def _notes(model: ModelProto, report: PlanReport, targets: tuple[str, ...]) -> list[str]:
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    notes = []
    for proof in report.proofs if quantised else ():
        if proof.share("int8", writes=False) == 0:
            cause = "Turing has no int8 convolution in TensorRT-RTX" if _TURING in targets else "for no known reason"
            if _TURING in targets and len(targets) > 1:
                cause += f", and one program serves all targets: leave {_TURING} out for int8"
            notes.append(f"Q/DQ graph, but no convolution reads int8 ({proof.summary}): {cause}")
        elif proof.share("int8") == 0:
            kinds = ", ".join(sorted({g.writes for g in proof.convolutions if g.reads == "int8"}))
            after = "a pointwise kernel after each makes int8 of it, at a cost in traffic but none in accuracy"
            notes.append(f"convolutions read int8 and write {kinds}; {after}")
    return notes
