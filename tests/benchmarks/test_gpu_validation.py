"""The GPU script, as far as a machine without a GPU can run it: its refusal, its arithmetic, its checks on the CPU's
kernels and on other backends, the isolation of its steps, and the page made of its figures."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import checks, engines, gates, library, native, neck, networks, ops, render, steps, timing
from benchmarks.gpu.records import (
    Copy,
    GateTiming,
    KernelCheck,
    NativeTest,
    NetworkTiming,
    Note,
    PartTiming,
    Report,
    Target,
    Times,
)
from irforge.errors import EnvironmentFault
from irforge.runtime.backends.device import gpus

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "gpu"
KERNELS = ROOT / "plugins" / "kernels"


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


# --- arithmetic


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


def test_errors_are_counted_in_units_of_the_output() -> None:
    exact = torch.tensor([1.0, 1.9, -3.0, 1e-7, 0.0], dtype=torch.float64)
    units = torch.tensor([2.0**-10, 2.0**-10, 2.0**-9, 2.0**-24, 2.0**-24], dtype=torch.float64)
    assert torch.allclose(checks.errors(exact + 3 * units, exact, "float16"), torch.full((5,), 3.0).double())
    assert checks.errors(torch.tensor([torch.nan]), exact[:1], "float32").isinf().all()
    saturated = checks.errors(torch.tensor([127, -128], dtype=torch.int8), torch.tensor([900.0, -128.4]), "int8")
    assert saturated.tolist() == [0.0, 0.0]
    assert checks.tolerance(8, "float32") == 8
    assert 0.5 < checks.tolerance(8, "int8") < checks.tolerance(8, "float16") < 0.51


@pytest.mark.parametrize("layout", library.LAYOUTS)
def test_a_layout_and_back_is_the_same(layout: str) -> None:
    x = torch.arange(2 * 64 * 3 * 5).view(2, 64, 3, 5)
    memory = library.to_layout(x, layout)
    assert torch.equal(library.from_layout(memory.flatten(), (2, 64, 3, 5), layout), x)
    assert (memory.flatten()[1] != x.flatten()[1]) == (layout != "linear")


@pytest.mark.parametrize("op", ops.OPS)
def test_eager_forms_agree_with_float64(op: type[library.Op]) -> None:
    for case in op.cases():
        if torch.Size(case.shape).numel() > 20_000:
            continue
        inputs = [x.float() for x in case.inputs(torch.Generator().manual_seed(0))]
        reference, eager = case.reference(inputs), case.eager(*inputs)
        assert eager.shape == case.output_shape
        if case.output == "int8":
            assert eager.dtype == torch.int8
            assert checks.errors(eager, reference, "int8").max() <= checks.tolerance(case.tolerance, "int8")
        else:
            assert torch.allclose(eager.double(), reference, rtol=2e-3, atol=1e-6)


# --- the kernels, through the C ABI


@pytest.fixture(scope="module")
def cpu_library(tmp_path_factory: pytest.TempPathFactory) -> library.KernelLibrary:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("kernels") / "libirforge_cpu.so"
    sources = [str(path) for path in sorted(KERNELS.glob("*.cpp")) if not path.stem.endswith("_cuda")]
    flags = ["-shared", "-fPIC", "-O2", "-std=c++17", f"-I{KERNELS.parent}"]
    subprocess.run([compiler, *flags, *sources, "-o", str(path)], check=True)
    return library.KernelLibrary(path, "cpu")


@pytest.mark.parametrize("op", ops.OPS)
def test_the_cpu_kernels_agree_with_float64(op: type[library.Op], cpu_library: library.KernelLibrary) -> None:
    cases = [case for case in op.cases() if case.layouts == ("linear", "linear")]
    small = [case for case in cases if torch.Size(case.shape).numel() < 200_000]
    assert {case.output for case in small} == {case.output for case in op.cases()}
    for case in small:
        found = checks.check(case, cpu_library)
        assert not found.failure, found
        assert found.max_error is not None and found.max_error <= found.limit


def test_a_wrong_a_refused_and_an_overlong_result_are_noticed(cpu_library: library.KernelLibrary) -> None:
    @dataclass(frozen=True)
    class Swapped(ops.MutualGate):
        def reference(self, inputs: object) -> torch.Tensor:
            g, l = inputs  # type: ignore[misc]
            return super().reference([l, g])

    @dataclass(frozen=True)
    class Short(ops.MutualGate):
        @property
        def output_shape(self) -> library.Shape:
            return (1, *self.shape[1:])

    shape = (1, 3, 5, 7)
    assert "differs from float64" in checks.check(Swapped(shape), cpu_library).failure
    assert "wrote outside" in checks.check(Short((1, 3, 2, 2)), cpu_library).failure
    refused = checks.check(replace(ops.MutualGate(shape), scales=(0.0, 1.0), output="int8"), cpu_library)
    assert "scale" in refused.failure and refused.max_error is None


def test_a_library_that_is_not_there_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be loaded"):
        library.KernelLibrary(tmp_path / "none.so", "cuda")


# --- networks


def test_networks_keep_their_output_in_half_precision() -> None:
    features = networks.example((1, 1, 32, 32), "cpu")
    with torch.inference_mode(), networks.tf32(False):
        expected = networks.prepared(networks.load_mshnet(), features, networks.REFERENCE)()
        given = networks.prepared(networks.load_mshnet(), features, networks.MODES[3])()
    assert expected.shape == (1, 1, 32, 32)
    assert given.dtype == torch.float16
    assert 0 < networks.relative_difference(given, expected) < 0.05
    assert networks.relative_difference(expected * torch.nan, expected) == float("inf")


# --- steps


def new_report() -> Report:
    gpu = {"name": "some GPU", "compute_capability": "9.0", "memory_bytes": 80 << 30}
    return Report("2026-01-02T03:04:05+00:00", gpu, {"python": "3.12.3", "driver": "580.1", "pycuda": "2026.1"})


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


# --- engines


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


# --- the neck on every backend


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


# --- the page


def test_the_committed_page_is_what_no_figures_make() -> None:
    page = (ROOT / "docs" / "gpu-validation.md").read_text()
    if "Measured on" in page:
        pytest.skip("the page holds measured figures")
    assert page == render.render(None)
    figures = sum(len(section) for _, section, _, _ in render.SECTIONS)
    assert page.count(f"| {render.PENDING} |") == figures


def test_every_figure_is_rendered_from_its_record(
    spot_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ROUNDS", 2)
    monkeypatch.setattr(engines, "FRAMES_A_ROUND", 2)
    report = filled(engines.check(spot_model(), "onnxruntime-cpu", tmp_path))
    report.write(tmp_path / "gpu.json")
    assert Report.read(tmp_path / "gpu.json") == report
    page = render.render(report)
    assert render.PENDING not in page
    for value in (
        "Measured on 2026-01-02: some GPU, SM 9.0, 80 GiB, 50 MiB of L2 cache",
        "2000 GB/s (1000 MB moved)",
        "0.9, promised at least 0.85: kept",
        "2, promised at least 2.3: missed",
        "| 1024x50x76: 1.5 |",
        "1 of 2 problems; largest error over its limit: MutualGate 0.25",
        "float16, linear 0.9; float16 -> int8, linear 0.45",
        "| 16x256x256: 4 |",
        "| 16x256x256 hwc8: 8 |",
        "tensorrt.enqueue passed",
        "graph: kernel 100 us",
        "kernel 10.0 % of FP16, channels last, CUDA graph",
        "1x1x256x256: 1 / 1.2 (FP16, channels last, CUDA graph)",
        "fp16 50x76 body 2 / 3 ms; fp16 50x76 plugin 1 / 1.5 ms",
        "| fp16 50x76 TensorRT 2.00; fp16 50x76 ONNX Runtime with CUDA 4.00 |",
        "| fp16 50x76 ONNX Runtime with CUDA 0.50 |",
        "fp16 1.0e-03",
        "| 50x76 | fp16 | TensorRT | plugin | 1 / 1.5 | 4 / 6 | 41 | 4.0e-03 of 4 |",
        "2.00 times as fast, host to host",
        "int8 75 %, fp16 25 %",
        "- build: no headers",
        "## Known without a GPU",
    ):
        assert value in page, value
    failed = page[page.index("## What failed") : page.index("## What was skipped")]
    assert failed.count("\n- ") == len(report.failures()) == 3


def filled(result: dict[str, object]) -> Report:
    """A report with a record behind every figure; the numbers are chosen so that the page's are easy to name."""

    def times(milliseconds: float) -> Times:
        ends = {"p10": 0.9 * milliseconds, "p90": 1.1 * milliseconds, "p99": 1.2 * milliseconds}
        return Times(p50=milliseconds, n=200, **ends)

    def gate(problem: library.Op, form: str, milliseconds: float, graph: bool = False) -> GateTiming:
        return GateTiming(
            op=type(problem).__name__,
            variant=problem.variant,
            shape=list(problem.shape),
            form=form,
            cuda_graph=graph,
            sets=2,
            set_bytes=problem.set_bytes,
            times=times(milliseconds),
            gb_per_s=1800 / milliseconds,
        )

    report = new_report()
    report.l2_bytes = 50 << 20
    report.copies = [Copy(bytes_moved=10**9, times=times(0.5), gb_per_s=2000.0)]
    large, single = ops.MutualGate((8, *gates.MAP)), ops.MutualGate((1, *gates.MAP))
    maps = ops.SpatialGate((1, 16, 256, 256))
    channels = ops.ChannelGate((1, 16, 256, 256), layout="hwc8")
    report.gates = [
        gate(large, "kernel", 1.0),
        gate(large, "eager", 2.0),
        gate(large, "torch.compile", 1.5),
        gate(replace(large, output="int8"), "kernel", 2.0),
        gate(single, "kernel", 0.2),
        gate(single, "kernel", 0.1, True),
        gate(maps, "kernel", 0.5, True),
        gate(maps, "eager", 2.0, True),
        gate(maps, "torch.compile", 1.0, True),
        gate(channels, "kernel", 0.5, True),
        gate(channels, "eager", 4.0, True),
        gate(channels, "torch.compile", 3.0, True),
    ]
    report.targets = gates.targets(report)
    assert [(target.value, bool(target.failure)) for target in report.targets] == [(0.9, False), (2.0, True)]
    assert all(isinstance(target, Target) for target in report.targets)
    good = KernelCheck(op="MutualGate", variant="float32", shape=[1, 1, 1, 1], max_error=2.0, limit=8.0)
    report.checks = [good, replace(good, variant="float16", max_error=None, failure="refused: no")]
    report.native_tests = [
        NativeTest(tool="ctest", name="kernels.cuda", outcome="passed", seconds=1.0),
        NativeTest(tool="ctest", name="tensorrt.enqueue", outcome="passed", seconds=1.0),
        NativeTest(tool="compute-sanitizer", name="kernels.cuda", outcome="passed", seconds=1.0),
    ]
    report.networks = [
        NetworkTiming(network=name, shape=shape, mode=mode.name, times=times(milliseconds), max_difference=1e-3)
        for name, shape in (("MSHNet", [1, 1, 256, 256]), ("GLMD neck", list(single.shape)))
        for mode, milliseconds in ((networks.REFERENCE, 5.0), (networks.MODES[4], 1.0))
    ]
    latency = result["latency"]["no graph"]  # type: ignore[index]
    clock = {"p50": 1.0, "p99": 1.5}
    engine = {
        **result,
        "backend": "tensorrt",
        "build_seconds": 12.3,
        "latency": {
            "cuda graph": {**latency, "gpu": clock, "host": clock},
            "no graph": {**latency, "host": {"p50": 2.0, "p99": 3.0}},
        },
        "proofs": [{"convolutions": [{"reads": "int8", "macs": 3}, {"reads": "fp16", "macs": 1}]}],
    }
    report.results = [engine, {**engine, "backend": "tensorrt_rtx"}, {**engine, "failure": "probabilities differ"}]
    report.results[2]["backend"] = "onnxruntime-cuda"
    body = PartTiming(
        part="GLMD neck",
        shape=list(single.shape),
        precision="fp16",
        form="body",
        backend="tensorrt",
        proofs=[{"kernels": 41}],
        max_difference=4e-3,
        largest=4.0,
        clocks={"cuda graph": {"gpu": {"p50": 2.0, "p99": 3.0}, "host": {"p50": 4.0, "p99": 6.0}}},
    )
    plugin = {"cuda graph": {**body.clocks["cuda graph"], "gpu": {"p50": 1.0, "p99": 1.5}}}
    runtime = replace(body, backend="onnxruntime-cuda", clocks={"no graph": {"host": {"p50": 8.0, "p99": 9.0}}})
    report.parts = [
        body,
        replace(body, form="plugin", clocks=plugin),
        replace(body, backend="tensorrt_rtx"),
        runtime,
        replace(runtime, form="plugin", clocks={"no graph": {"host": {"p50": 2.0, "p99": 2.5}}}),
        replace(runtime, form="body, merged", clocks={"no graph": {"host": {"p50": 16.0, "p99": 17.0}}}),
    ]
    report.failed, report.targets = [], report.targets
    report.skipped = [Note(step="build", reason="no headers")]
    return report
