"""The GPU script's checks of engines and of the neck, on other backends."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import engines, neck, steps
from benchmarks.gpu.records import Report
from irforge.errors import EnvironmentFault
from irforge.runtime.backends.device import gpus


def test_native_operators_are_judged_beside_the_bodies(
    untrained_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irforge.runtime.custom_ops import native_library

    monkeypatch.setattr(engines, "ROUNDS", 2)
    monkeypatch.setattr(engines, "FRAMES_A_ROUND", 2)
    run = steps.Run(tmp_path, "engines", Report("", {}, {}), time.monotonic() + 600, None, [])
    assert [life for _, life in engines.forms(untrained_onnx, "tensorrt_rtx", run)] == ["body"]
    try:
        native_library("onnxruntime")
    except EnvironmentFault as error:
        pytest.skip(error.line)
    (plain, _), (fused, life) = engines.forms(untrained_onnx, "onnxruntime-cpu", run)
    assert plain == untrained_onnx and fused.is_file() and life == "plugin"
    assert not engines.check(fused, "onnxruntime-cpu", tmp_path, "plugin")["failure"]


def test_a_result_holds_parity_and_every_clock(
    spot_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ROUNDS", 2)
    monkeypatch.setattr(engines, "FRAMES_A_ROUND", 2)
    result = engines.check(spot_model(), "onnxruntime-cpu", tmp_path)
    assert result["failure"] == ""
    assert result["parity"]["max_difference"] == 0 and result["parity"]["frames"] == engines.FRAMES
    assert result["latency"]["no graph"]["frame"]["n"] == 4


def test_a_failure_is_recorded_and_does_not_end_the_run(spot_model: Callable[..., Path], tmp_path: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    result = engines.check(spot_model(), "tensorrt", tmp_path)
    assert "GPU" in result["failure"] and "latency" not in result


def test_a_gpu_that_tensorrt_rtx_refuses_gets_no_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report("", {"compute_capability": "9.0"}, {})
    run = steps.Run(tmp_path, "engines", report, time.monotonic() + 60, None, [])
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "tensorrt" else object())
    with contextlib.suppress(EnvironmentFault):
        assert "tensorrt_rtx" not in engines.gpu_backends(run, ())
    assert [note.reason for note in report.skipped] == ["TensorRT-RTX: it does not run on Hopper"]


@pytest.fixture(scope="module")
def necks() -> neck.Necks:
    return neck.Necks(64)


@pytest.fixture
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neck, "WARM_UP", 1)
    monkeypatch.setattr(neck, "CALLS", 3)


@pytest.mark.parametrize("form", ["body", "body, merged", "plugin"])
@pytest.mark.parametrize("precision", neck.LIMITS)
def test_the_neck_is_held_to_torch_and_timed(
    precision: str, form: neck.Form, necks: neck.Necks, few_calls: None, tmp_path: Path
) -> None:
    if form == "plugin" and (reason := neck.lacks_plugin("onnxruntime-cpu")):
        pytest.skip(reason)
    found = neck.check(necks, neck.Variant((10, 12), precision, form), "onnxruntime-cpu", tmp_path)
    assert not found.failure and found.shape == [1, 64, 10, 12]
    assert found.max_difference is not None and found.largest is not None
    assert 0 < found.max_difference <= neck.LIMITS[precision] * found.largest
    assert found.best["host"]["n"] == 3 and "gpu" not in found.best
    assert "MutualGate" in found.custom_ops and found.custom_ops.endswith(
        f"by {'plugin' * (form == 'plugin') or 'body'}"
    )
    assert not list(tmp_path.iterdir())


def test_a_neck_that_differs_from_torch_is_noticed(few_calls: None, tmp_path: Path) -> None:
    class Shifted(neck.Necks):
        def maps(self, size: tuple[int, int]) -> tuple[neck.Map, neck.Map]:
            features, expected = super().maps(size)
            return features, expected + abs(expected).max() / 10

    found = neck.check(Shifted(64), neck.Variant((10, 12), "fp32", "body"), "onnxruntime-cpu", tmp_path)
    assert "differs by up to" in found.failure and found.max_difference


def test_a_neck_that_cannot_run_here_keeps_what_its_build_told(necks: neck.Necks, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    if gpus():
        pytest.skip("this machine has a GPU")
    found = neck.check(necks, neck.Variant((10, 12), "fp16", "body"), "tensorrt_rtx", tmp_path)
    assert "NVIDIA GPU" in found.failure and not found.clocks
    assert found.build_seconds and found.engine_bytes and found.proofs
    assert not list(tmp_path.iterdir())
