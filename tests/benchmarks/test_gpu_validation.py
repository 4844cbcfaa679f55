"""The GPU script on a machine without a GPU: its refusal, its arithmetic, and the isolation of its steps."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import native, networks, steps, timing
from benchmarks.gpu.records import Report, Times
from irforge.runtime.backends.device import gpus
from tests.benchmarks.gpu_records import ROOT, new_report

FOLDER = ROOT / "benchmarks" / "gpu"


def test_without_a_gpu_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([str(FOLDER / "run.sh"), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1 and "no NVIDIA GPU" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_bare_checkout_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    program = tmp_path / "bare.py"
    program.write_text(
        """if True:
        import sys
        absent = ("pydantic", "typer", "rich", "onnx", "onnxruntime", "yaml", "cv2", "scipy", "safetensors")
        sys.modules.update(dict.fromkeys(absent))
        sys.path.insert(0, sys.argv[1])
        from benchmarks.gpu import checks, engines, gates, native, neck, networks, ops, render, timing, validate
        networks.load_mshnet()
        validate.main(["out"])
        """
    )
    done = subprocess.run([sys.executable, str(program), str(ROOT)], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    if not gpus():
        assert "no NVIDIA GPU" in done.stderr and not (tmp_path / "out").exists()


def test_percentiles_are_of_all_samples() -> None:
    times = timing.percentiles([float(value) for value in range(101)])
    assert times == Times(p10=10.0, p50=50.0, p90=90.0, p99=99.0, n=101)


def test_sets_take_turns_until_three_caches_are_full() -> None:
    assert timing.sets_past_cache(100, 1000) == 30
    assert timing.sets_past_cache(101, 1000) == 30
    assert timing.sets_past_cache(5000, 1000) == 2
    assert timing.batch_past_cache(31, 50) == 8 and 8 * 31 >= 150 > 4 * 31
    assert timing.batch_past_cache(1000, 50) == 1
    assert timing.bandwidth(3_000_000, 1.0) == pytest.approx(3.0)


def test_networks_keep_their_output_in_half_precision() -> None:
    features = networks.example((1, 1, 32, 32), "cpu")
    with torch.inference_mode(), networks.tf32(False):
        expected = networks.prepared(networks.load_mshnet(), features, networks.REFERENCE)()
        given = networks.prepared(networks.load_mshnet(), features, networks.MODES[3])()
    assert expected.shape == (1, 1, 32, 32)
    assert given.dtype == torch.float16
    assert 0 < networks.relative_difference(given, expected) < 0.05
    assert networks.relative_difference(expected * torch.nan, expected) == float("inf")


def new_run(out: Path, seconds: float = 60) -> steps.Run:
    return steps.Run(out, "trial", new_report(), time.monotonic() + seconds)


def test_steps_are_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trial_steps.py").write_text(
        """if True:
        import os, time
        from irforge.errors import EnvironmentFault
        def lacks(run): raise EnvironmentFault("no left hand here")
        def imports(run): import no_such_package
        def breaks(run): run.skip("first part"); raise RuntimeError("illegal access")
        def dies(run): run.skip("first part"); os.kill(os.getpid(), 9)
        def hangs(run): time.sleep(600)
        """
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(steps, "GRACE_SECONDS", 1.0)
    expected = {
        "lacks": (["no left hand here"], []),
        "imports": (["no Python package 'no_such_package' here"], []),
        "breaks": (["first part"], ["RuntimeError: illegal access"]),
        "dies": (["first part"], ["its process ended with -9"]),
    }
    for name, (skipped, failed) in expected.items():
        run = new_run(tmp_path)
        steps.run_isolated(steps.Step(f"trial_steps:{name}", "", 30), run)
        assert [note.reason for note in run.report.skipped] == skipped
        assert [note.reason for note in run.report.failed] == failed
        assert Report.read(run.file) == run.report
    run = new_run(tmp_path)
    steps.run_isolated(steps.Step("trial_steps:hangs", "", 2), run)
    assert "stopped after 3 s" in run.report.failed[0].reason


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    run = new_run(tmp_path, seconds=10)
    assert run.has_time("short", 5) and not run.has_time("long", 20)
    assert [note.reason for note in Report.read(run.file).skipped] == ["long: out of time"]


def test_ctest_results_are_read() -> None:
    text = """<testsuite tests="3">
    <testcase name="kernels.cpu" time="1.5" status="run"><system-out>fine</system-out></testcase>
    <testcase name="kernels.cuda" time="0.1" status="notrun"><skipped message="SKIP"/>
      <system-out>no device</system-out></testcase>
    <testcase name="tensorrt.host" time="0.2" status="fail"><failure message="Failed"/>
      <system-out>FAIL: has a creator</system-out></testcase></testsuite>"""
    found = native.read_junit(text, "ctest")
    assert [(test.name, test.outcome) for test in found] == [
        ("kernels.cpu", "passed"),
        ("kernels.cuda", "skipped"),
        ("tensorrt.host", "failed"),
    ]
    assert found[2].failure == "FAIL: has a creator" and not found[0].failure and not found[1].failure
