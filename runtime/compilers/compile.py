"""The child process: parses an ONNX file and compiles it with TensorRT or TensorRT-RTX.

Run as `python -m irforge.runtime.compilers.compile REQUEST RESULT`: REQUEST is a `BuildRequest` as JSON, RESULT the
file that a `BuildResult`, or with exit code 1 a `BuildFailure`, is written to. The compiler's log goes to stdout.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from irforge.errors import EnvironmentFault
from irforge.runtime.compilers import EXTRAS, import_compiler
from irforge.runtime.compilers.request import BuildFailure, BuildRequest, BuildResult
from irforge.runtime.compilers.targets import enum_name
from irforge.runtime.custom_ops import require_same_major


class _RefusedError(Exception):
    def __init__(self, gate: str, message: str) -> None:
        self.failure = BuildFailure.model_validate({"gate": gate, "message": " ".join(message.split())})
        super().__init__(message)


def main(request_text: str, answer: str) -> int:
    request = BuildRequest.model_validate_json(request_text)
    try:
        result = _compile(request)
    except _RefusedError as refused:
        Path(answer).write_text(refused.failure.model_dump_json())
        return 1
    except OSError as error:
        failure = BuildFailure(gate="environment", message=f"{error.strerror}: '{error.filename or request.plan}'")
        Path(answer).write_text(failure.model_dump_json())
        return 1
    Path(answer).write_text(result.model_dump_json())
    return 0


def _compile(request: BuildRequest) -> BuildResult:
    try:
        trt = import_compiler(request.backend)
    except (ImportError, OSError) as error:
        raise _RefusedError(
            "environment", f"{request.backend} does not load: {error}. {EXTRAS[request.backend]}"
        ) from None
    started = time.perf_counter()
    logger, errors = _logger(trt)
    builder = _builder(trt, logger, errors)
    if request.plugin_library:
        load_plugins(trt, request.plugin_library, request.plugins)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if request.plugin_library and hasattr(trt.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE"):
        parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
    _parse(trt, parser, network, Path(request.onnx).read_bytes())
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    _add_profile(builder, config, network, request)
    if request.backend == "tensorrt_rtx":
        _set_targets(trt, config, request.targets)
    cache = _open_timing_cache(config, request.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None or plan.nbytes == 0:
        raise _RefusedError("compiler", errors[-1] if errors else "it returned no plan and no message")
    Path(request.plan).write_bytes(plan)
    if cache is not None and request.timing_cache:
        from irforge.files import write_bytes

        write_bytes(request.timing_cache, bytes(config.get_timing_cache().serialize()))
    seconds = time.perf_counter() - started
    if request.backend == "tensorrt_rtx":
        return BuildResult(version=trt.__version__, seconds=seconds, compute_capabilities=request.targets)
    return _inspected(trt, logger, plan, request, seconds)


def load_plugins(trt: Any, library: str, wanted: tuple[str, ...]) -> None:
    """Load a plugin library into TensorRT's registry, and make sure that each wanted creator came with it."""
    try:
        require_same_major(library, trt.__version__)
    except EnvironmentFault as fault:
        raise _RefusedError("environment", fault.line) from None
    registry = trt.get_plugin_registry()
    if registry.load_library(library) is None:
        raise _RefusedError("environment", f"TensorRT does not load the plugin library '{library}'")
    missing = [name for name in wanted if registry.get_creator(name, "1", "") is None]
    if missing:
        there = ", ".join(sorted(creator.name for creator in registry.all_creators)) or "none"
        raise _RefusedError(
            "environment", f"'{library}' registers no creator for {', '.join(missing)}; the registered ones: {there}"
        )


def _logger(trt: Any) -> tuple[Any, list[str]]:
    errors: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.Severity.VERBOSE:
                return
            print(f"{severity.name}: {message.strip()}", flush=True)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)

    return Log(), errors


def _builder(trt: Any, logger: Any, errors: list[str]) -> Any:
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        raise _RefusedError(
            "environment", f"no builder without a GPU and its driver: {errors[-1] if errors else error}"
        ) from None
    if builder is None:
        raise _RefusedError("environment", errors[-1] if errors else "no builder; is there a GPU with a driver?")
    return builder


def _network_flags(trt: Any) -> int:
    # TensorRT 10 has to be told to keep the types of the graph; 11 knows nothing else and ignores the flag.
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    is_ten = trt.__version__.startswith("10.")
    return 1 << int(strongly_typed) if is_ten and strongly_typed is not None else 0


def _parse(trt: Any, parser: Any, network: Any, content: bytes) -> None:
    accepted = parser.parse(content)
    if not accepted or parser.num_errors:
        first = parser.get_error(0) if parser.num_errors else None
        if first is None:
            raise _RefusedError("parser", "it gives no reason")
        node = first.node_name() if hasattr(first, "node_name") else ""
        kind = first.node_operator() if hasattr(first, "node_operator") else ""
        where = f"node '{node}' ({kind}): " if node or kind else ""
        raise _RefusedError("parser", f"{where}{first.desc()}")
    # Garbage parses too, into a network of nothing.
    if not network.num_outputs or not network.num_inputs:
        raise _RefusedError("parser", f"the network has {network.num_inputs} inputs and {network.num_outputs} outputs")


def _add_profile(builder: Any, config: Any, network: Any, request: BuildRequest) -> None:
    free = {
        tensor.name: tuple(tensor.shape)
        for tensor in (network.get_input(i) for i in range(network.num_inputs))
        if any(side < 0 for side in tensor.shape)
    }
    if not free:
        return
    profile = builder.create_optimization_profile()
    for name, shape in free.items():
        if name not in request.profile:
            raise _RefusedError("parser", f"input '{name}' has free sizes {shape} that the contract says nothing about")
        least, tuned, most = request.profile[name]
        profile.set_shape(name, least, tuned, most)
    if config.add_optimization_profile(profile) < 0:
        raise _RefusedError("compiler", f"the optimisation profile {request.profile} does not fit the network")


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, enum_name(target)), index)


def _open_timing_cache(config: Any, path: str | None) -> Any:
    if path is None:
        return None
    file = Path(path)
    cache = config.create_timing_cache(file.read_bytes() if file.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        # A cache of another version or GPU: begin a new one, as trtexec does.
        print(f"WARNING: the timing cache '{path}' is of another version or GPU and is replaced", flush=True)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _inspected(trt: Any, logger: Any, plan: Any, request: BuildRequest, seconds: float) -> BuildResult:
    from irforge.runtime.backends.device import gpus
    from irforge.runtime.inspector import read_inspector

    gpu = gpus()[0]
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise _RefusedError("compiler", "the plan it wrote does not load on this device")
    context = engine.create_execution_context()
    for name, (_, tuned, _) in request.profile.items():
        context.set_input_shape(name, tuned)
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    report = read_inspector(
        inspector.get_engine_information(trt.LayerInformationFormat.JSON),
        tool=f"TensorRT {trt.__version__}",
        target=gpu.compute_capability,
        shapes={name: tuple(context.get_tensor_shape(name)) for name in inputs},
        peak_bytes=getattr(engine, "device_memory_size_v2", None) or getattr(engine, "device_memory_size", None),
    )
    return BuildResult(
        version=trt.__version__,
        seconds=seconds,
        compute_capabilities=(gpu.compute_capability,),
        device=gpu.name,
        proofs=report.proofs,
        proof_unavailable=report.reason,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
