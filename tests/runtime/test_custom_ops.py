"""The choice between body and plugin is explicit, is kept, and says what it lacks."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import irforge
from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.errors import BuildError, EnvironmentFault, UsageError
from irforge.ops import SPATIAL_GATE, add_bodies
from irforge.runtime.backends import open_session
from irforge.runtime.compilers.compile import load_plugins
from irforge.runtime.compilers.trtexec import trtexec_commands
from irforge.runtime.custom_ops import (
    ENVIRONMENT,
    LIBRARIES,
    live,
    native_library,
    parse_life,
    require_cuda,
    require_same_major,
    tensorrt_major,
)
from irforge.runtime.engines import BuildOptions, build_engine

SpotModel = Callable[..., Path]


@pytest.fixture
def gated(spot_model: SpotModel, tmp_path: Path) -> Path:
    """A deployable with a SpatialGate of one channel before its last node."""
    model = load_model(spot_model())
    contract = read_contract(model)
    last = model.graph.node[-1]
    before = last.input[0]
    weight = np.zeros((1, 2, 3, 3), np.float32)
    weight[0, :, 1, 1] = 0.5
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "gate_weight"))
    model.graph.node.insert(len(model.graph.node) - 1, SPATIAL_GATE.node([before, "gate_weight"], "gated"))
    model.graph.node[-1].input[0] = "gated"
    model.opset_import[0].version = 18
    add_bodies(model)
    embed_contract(model, contract)
    path = tmp_path / "gated.onnx"
    save_model(path, model)
    return path


def native(backend: str) -> Path:
    """The library of a backend, or a skip that says how to build it."""
    try:
        return native_library(backend)
    except EnvironmentFault as error:
        pytest.skip(error.line)


@pytest.fixture
def no_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "empty"))
    yield tmp_path / "empty"


def test_the_body_runs_by_default_and_is_named(gated: Path) -> None:
    with irforge.load(gated) as detector:
        assert detector.session.custom_ops == "SpatialGate by body"
        assert "SpatialGate by body" in repr(detector)


def test_a_model_without_custom_operators_names_none(spot_model: SpotModel) -> None:
    with irforge.load(spot_model()) as detector:
        assert detector.session.custom_ops == "" and "by body" not in repr(detector)


def test_a_plugin_for_a_model_without_custom_operators_is_refused(spot_model: SpotModel) -> None:
    with pytest.raises(UsageError, match="no custom operator"):
        irforge.load(spot_model(), custom_ops="plugin")


def test_a_missing_library_is_named_with_its_folder(gated: Path, no_libraries: Path) -> None:
    with pytest.raises(EnvironmentFault, match=f"{LIBRARIES['onnxruntime']}' is not in '{no_libraries}'"):
        open_session(gated, custom_ops="plugin")


def test_only_two_forms_are_known() -> None:
    assert parse_life("body") == "body" and parse_life("plugin") == "plugin"
    with pytest.raises(UsageError, match="'native'"):
        parse_life("native")


def test_a_plugin_takes_the_bodies_out_of_what_the_runtime_sees(gated: Path) -> None:
    model = load_model(gated)
    assert live(model, "plugin", gated) == "SpatialGate by plugin"
    assert not model.functions


def test_the_native_kernel_is_the_one_that_runs(gated: Path) -> None:
    """Counted by the library itself: its kernel ran, and gave what the body gives."""
    library = ctypes.CDLL(str(native("onnxruntime")))
    library.irforge_ort_calls.restype = ctypes.c_longlong
    library.irforge_ort_calls.argtypes = [ctypes.c_char_p]
    frames = {"frames": np.random.default_rng(0).integers(0, 255, (2, 1, 64, 64), np.uint8)}
    with open_session(gated) as by_body, open_session(gated, custom_ops="plugin") as by_plugin:
        expected = by_body.run(frames)["mask"]
        before = library.irforge_ort_calls(b"SpatialGate")
        found = by_plugin.run(frames)["mask"]
        assert library.irforge_ort_calls(b"SpatialGate") == before + 1
        assert by_plugin.custom_ops == "SpatialGate by plugin"
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tensorrt_rtx_takes_no_plugins(gated: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TensorRT-RTX takes no plugins"):
        build_engine(gated, tmp_path / "gated.rtx.engine", BuildOptions(targets=("8.9",), custom_ops="plugin"))
    assert not list(tmp_path.glob("*.engine*"))


def test_an_engine_says_that_its_custom_operators_are_bodies(gated: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    sidecar = build_engine(gated, tmp_path / "gated.rtx.engine", BuildOptions(targets=("8.9",)))
    assert sidecar.custom_ops == "SpatialGate by body" and not sidecar.plugins


def test_an_engine_keeps_the_choice_it_was_built_with(gated: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    engine = tmp_path / "gated.rtx.engine"
    build_engine(gated, engine, BuildOptions(targets=("8.9",)))
    with pytest.raises(UsageError, match="was built with its custom operators' bodies"):
        open_session(engine, custom_ops="plugin")


def test_a_library_without_our_operators_is_an_environment_fault(
    gated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.c").write_text("int something_else;")
    library = tmp_path / LIBRARIES["onnxruntime"]
    subprocess.run(["cc", "-shared", "-fPIC", str(tmp_path / "other.c"), "-o", str(library)], check=True)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with pytest.raises(EnvironmentFault, match="does not load the plugin library"):
        open_session(gated, custom_ops="plugin")


def test_trtexec_gets_the_plugin_library() -> None:
    for line in trtexec_commands("m.onnx", "m.engine", {}, plugin_library="/x/libirforge_plugins.so").values():
        assert "--dynamicPlugins=/x/libirforge_plugins.so" in line


class Registry:
    """As much of TensorRT's registry as loading asks for."""

    def __init__(self, *names: str, loads: bool = True) -> None:
        self.all_creators = [SimpleNamespace(name=name) for name in names]
        self.loads = loads

    def load_library(self, path: str) -> object | None:
        return object() if self.loads else None

    def get_creator(self, name: str, version: str, namespace: str) -> object | None:
        found = (version, namespace) == ("1", "") and any(creator.name == name for creator in self.all_creators)
        return object() if found else None


def test_a_missing_creator_is_named_beside_those_registered() -> None:
    library = str(native("tensorrt"))
    registry = Registry("MutualGate", "ROIAlign")
    trt = SimpleNamespace(get_plugin_registry=lambda: registry, __version__=f"{tensorrt_major(library)}.3.0")
    load_plugins(trt, library, ("MutualGate",))
    with pytest.raises(Exception, match="no creator for SpatialGate; the registered ones: MutualGate, ROIAlign"):
        load_plugins(trt, library, ("MutualGate", "SpatialGate"))
    registry.loads = False
    with pytest.raises(Exception, match=r"does not load the plugin library '.*libirforge_plugins\.so'"):
        load_plugins(trt, library, ())


def test_a_library_without_cuda_kernels_is_refused_for_the_gpu(tmp_path: Path) -> None:
    source = tmp_path / "operators.c"
    source.write_text("int irforge_ort_has_cuda(void) { return 0; }")
    library = tmp_path / "operators.so"
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    with pytest.raises(EnvironmentFault, match="was built without CUDA"):
        require_cuda(library)


def test_a_library_for_another_major_version_is_refused(tmp_path: Path) -> None:
    library = native("tensorrt")
    major = tensorrt_major(library)
    require_same_major(library, f"{major}.3.0")
    with pytest.raises(EnvironmentFault, match=f"was built for TensorRT {major}, here is {major + 1}.0"):
        require_same_major(library, f"{major + 1}.0")
    (tmp_path / "no.so").write_bytes(b"no library")
    with pytest.raises(EnvironmentFault, match=r"no\.so' does not load"):
        require_same_major(tmp_path / "no.so", "10.3")


def test_the_command_line_passes_the_choice_on(gated: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "irforge.cli", "build", str(gated), "--custom-ops", "plugin"]
    done = subprocess.run([*build, "-o", str(tmp_path / "x.rtx.engine")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "takes no plugins" in done.stderr


def test_a_plugin_build_without_a_gpu_says_what_it_needs(gated: Path, tmp_path: Path) -> None:
    from irforge.runtime.backends.device import gpus

    if gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises((EnvironmentFault, BuildError), match=r"GPU|libirforge_plugins\.so"):
        build_engine(gated, tmp_path / "gated.engine", BuildOptions(custom_ops="plugin"))
