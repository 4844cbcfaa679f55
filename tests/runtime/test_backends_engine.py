"""What GPU sessions promise, as far as a machine without a GPU can hold them to it.

Host memory plays the device here, and a function that doubles its input plays the engine: what is tested is the
session's own part, from refusals to buffers, shapes and graph replay. The real thing is in benchmarks/gpu.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from irforge.artifact import read_contract
from irforge.errors import ArtifactError, EnvironmentFault, InputError, UsageError
from irforge.files import sha256_of_file
from irforge.runtime.backends import choose_backend, cuda, engine, open_session
from irforge.runtime.backends.cuda import Memory, load_cuda
from irforge.runtime.backends.device import Gpu, gpus
from irforge.runtime.parts import open_part
from irforge.runtime.sidecar import (
    LOADERS,
    EngineRecord,
    Sidecar,
    Source,
    read_sidecar,
    sidecar_path,
    this_platform,
)
from irforge.session import Session

ConvModel = Callable[..., Path]
LEAST, MOST = (1, 1, 32, 32), (4, 1, 96, 96)


class HostMemoryCuda:
    """The four functions of the CUDA layer over host memory; the device's work runs when it is queued."""

    name, thread_rule = "host", "one thread at a time"

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}
        self.captures = self.replays = 0
        self.capturing = False

    def allocate(self, nbytes: int, *, pinned: bool = False) -> Memory:
        block = np.zeros(nbytes, np.uint8)
        pointer = block.ctypes.data
        self.blocks[pointer] = block
        return Memory(pointer, nbytes, block if pinned else None, lambda: self.blocks.pop(pointer) is None)

    def copy(self, target: Memory, source: Memory, nbytes: int, stream: Any) -> None:
        assert nbytes <= min(target.nbytes, source.nbytes)
        ctypes.memmove(target.pointer, source.pointer, nbytes)

    def stream(self) -> Any:
        def capture(work: Callable[[], None]) -> Callable[[], None]:
            self.captures += 1
            self.capturing = True
            work()
            self.capturing = False

            def replay() -> None:
                self.replays += 1
                work()

            return replay

        return SimpleNamespace(handle=7, synchronize=lambda: None, capture=capture, close=lambda: None)

    def event(self) -> Any:
        event = SimpleNamespace(record=lambda stream: None)
        event.seconds_since = lambda earlier: 0.001
        return event


class DoublingContext:
    """An execution context that writes 2 x frames as float32 to mask, wherever the two addresses point."""

    def __init__(self, layer: HostMemoryCuda) -> None:
        self.layer = layer
        self.shape: tuple[int, ...] = MOST
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if not self.layer.capturing:
            count = int(np.prod(self.shape))
            frames = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(self.addresses["frames"]))
            mask = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses["mask"]))
            mask[:] = frames * np.float32(2)
        return True


@pytest.fixture
def plan(conv_model: ConvModel, tmp_path: Path) -> Path:
    path, model = tmp_path / "x.engine", conv_model(batch="N", height="H", width="W")
    path.write_bytes(b"plan")
    sidecar = Sidecar(
        engine=path.name,
        engine_sha256=sha256_of_file(path),
        engine_bytes=4,
        runtime="TensorRT",
        loaders=LOADERS["TensorRT"],
        runtime_version="10.3.0",
        irforge_version="0",
        platform=this_platform(),
        compute_capabilities=["8.7"],
        onnx=Source(name=model.name, sha256=sha256_of_file(model)),
        build_seconds=1.0,
        built_at="2026-01-01T00:00:00+00:00",
        contract=read_contract(model),
    )
    sidecar_path(path).write_text(sidecar.model_dump_json(by_alias=True))
    return path


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine whose GPU is host memory; `loaded` counts what was deserialised."""
    layer = HostMemoryCuda()
    state = SimpleNamespace(layer=layer, loaded=0, accepts=True)
    inputs = {"frames": True, "mask": False}
    fake_engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda index: list(inputs)[index],
        get_tensor_shape=lambda name: (-1, 1, -1, -1),
        get_tensor_mode=lambda name: "in" if inputs[name] else "out",
        get_tensor_dtype=lambda name: np.uint8 if inputs[name] else np.float32,
        get_tensor_profile_shape=lambda name, profile: (LEAST, (1, 1, 64, 64), MOST),
        create_execution_context=lambda: DoublingContext(layer),
    )

    class Logger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    def deserialize(content: bytes) -> Any:
        state.loaded += 1
        return fake_engine if state.accepts else None

    library = SimpleNamespace(
        __version__="10.3.0",
        ILogger=Logger,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        nptype=lambda kind: kind,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialize),
    )
    monkeypatch.setattr(engine, "gpus", lambda: (Gpu("Orin", "8.7", 2**33),))
    monkeypatch.setattr(engine, "import_compiler", lambda backend: library)
    monkeypatch.setattr(engine, "load_cuda", lambda: layer)
    return state


def frames(batch: int = 1, height: int = 32, width: int = 48) -> np.ndarray:
    shape = (batch, 1, height, width)
    return np.random.default_rng(batch + height).integers(0, 256, shape, dtype=np.uint8)


def test_results_are_the_engines_whatever_shape_comes_next(plan: Path, host: Any) -> None:
    with open_session(plan) as session:
        assert isinstance(session, Session)
        assert session.inputs["frames"].shape == ("N", 1, "H", "W") == session.outputs["mask"].shape
        for feed in (frames(), frames(4, 96, 96), frames(1, 64, 32), frames()):
            np.testing.assert_array_equal(session.run({"frames": feed})["mask"], feed * np.float32(2))
            out = {"mask": np.full(feed.shape, -1, np.float32)}
            assert session.run({"frames": feed}, out) is out
            np.testing.assert_array_equal(out["mask"], feed * np.float32(2))


def test_returned_arrays_are_not_overwritten_by_the_next_run(plan: Path, host: Any) -> None:
    with open_session(plan) as session:
        first = session.run({"frames": np.full((1, 1, 32, 32), 1, np.uint8)})["mask"]
        session.run({"frames": np.full((1, 1, 32, 32), 9, np.uint8)})
        assert (first == 2).all()


def test_nothing_is_allocated_after_the_session_is_made(plan: Path, host: Any) -> None:
    with open_session(plan) as session:
        before = set(host.layer.blocks)
        for feed in (frames(), frames(4, 96, 96), frames()):
            session.run({"frames": feed})
        assert set(host.layer.blocks) == before
    assert not host.layer.blocks


def test_a_graph_is_captured_on_the_second_run_at_a_shape_and_replayed(plan: Path, host: Any) -> None:
    with open_session(plan) as session:
        for _ in range(4):
            session.run({"frames": frames()})
        assert (host.layer.captures, host.layer.replays) == (1, 3)
        session.run({"frames": frames(2)})
        assert (host.layer.captures, host.layer.replays) == (1, 3)
    with open_session(plan, cuda_graph=False) as session:
        for _ in range(3):
            session.run({"frames": frames()})
        assert host.layer.captures == 1


def test_timings_are_split_into_copies_and_compute(plan: Path, host: Any) -> None:
    with open_session(plan) as session:
        assert session.last_timings is None
        session.run({"frames": frames()})
        assert session.last_timings is not None
        assert (session.last_timings.copy_in, session.last_timings.compute) == (0.001, 0.001)


def test_shapes_outside_the_profile_are_refused(plan: Path, host: Any) -> None:
    with open_session(plan) as session, pytest.raises(InputError, match=r"built for \(1, 1, 32, 32\)"):
        session.run({"frames": frames(5)})


def test_a_changed_engine_is_refused_before_it_is_deserialised(plan: Path, host: Any) -> None:
    plan.write_bytes(b"nalp")
    with pytest.raises(ArtifactError, match="engines are code"):
        open_session(plan)
    assert host.loaded == 0
    open_session(plan, trust_engine=True).close()
    assert host.loaded == 1


def test_an_engine_of_another_version_is_refused_before_it_is_deserialised(
    plan: Path, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.import_compiler("tensorrt"), "__version__", "10.13.2")
    with pytest.raises(ArtifactError, match=r"with TensorRT 10\.3\.0, here is 10\.13\.2.*irforge build"):
        open_session(plan)
    # Trust is for who wrote it, not for what can run it.
    with pytest.raises(ArtifactError, match="here is"):
        open_session(plan, trust_engine=True)
    assert host.loaded == 0


def test_a_part_opens_by_what_was_built_and_by_nothing_else(plan: Path, host: Any) -> None:
    sidecar = read_sidecar(plan)
    built = EngineRecord(**{name: getattr(sidecar, name) for name in EngineRecord.model_fields})
    sidecar_path(plan).unlink()
    with open_part(plan, built) as session:
        assert isinstance(session, Session) and session.contract is None
        assert session.inputs["frames"].shape == ("frames.0", 1, "frames.2", "frames.3")
        for feed in (frames(), frames(4, 96, 96)):
            np.testing.assert_array_equal(session.run({"frames": feed})["mask"], feed * np.float32(2))
    plan.write_bytes(b"nalp")
    with pytest.raises(ArtifactError, match="changed since it was built here"):
        open_part(plan, built)
    with pytest.raises(ArtifactError, match="missing"):
        open_session(plan)
    assert host.loaded == 1


def test_a_plan_that_the_runtime_refuses_names_the_command(plan: Path, host: Any) -> None:
    host.accepts = False
    with pytest.raises(ArtifactError, match="irforge build"):
        open_session(plan)


def test_a_closed_session_says_so(plan: Path, host: Any) -> None:
    session = open_session(plan)
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run({"frames": frames()})


def test_without_a_gpu_that_is_what_is_said(plan: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EnvironmentFault, match="NVIDIA GPU with its driver"):
        open_session(plan)


def test_without_a_cuda_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    with pytest.raises(EnvironmentFault, match=r"irforge\[gpu\]"):
        load_cuda()


def test_cuda_python_without_a_driver_is_one_line() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed (pip install 'irforge[gpu]')")
    if gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EnvironmentFault, match="CUDA"):
        cuda.load_cuda()


@pytest.mark.parametrize(
    ("name", "backend", "words"),
    [
        ("x.plan", None, "suffixes"),
        ("x.onnx", "tensorrt", "does not take"),
        ("x.engine", "onnxruntime-cpu", "tensorrt"),
    ],
)
def test_a_backend_that_does_not_take_the_file_is_refused(name: str, backend: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_backend(name, backend)


def test_a_checkpoint_is_told_how_to_become_a_deployable() -> None:
    with pytest.raises(UsageError, match=r"It is a checkpoint: irforge export a/x\.safetensors -o a/x\.onnx$"):
        choose_backend("a/x.safetensors")


def test_the_suffix_tells_the_two_runtimes_apart() -> None:
    assert choose_backend("a/x.rtx.engine") == "tensorrt_rtx"
    assert choose_backend("a/x.engine") == "tensorrt"
