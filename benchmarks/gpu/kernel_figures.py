"""The page's figures of the kernels, and of the networks in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu.figures import Figure, microseconds, milliseconds, number, table
from benchmarks.gpu.records import GateTiming, NetworkTiming, Report, Target, picked

KERNEL, EAGER, COMPILED = "kernel", "eager", "torch.compile"


def _copy(report: Report) -> str:
    return "; ".join(f"{copy.gb_per_s:.0f} GB/s ({copy.bytes_moved / 1e6:.0f} MB moved)" for copy in report.copies)


def _target(name: str) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        found: list[Target] = [target for target in report.targets if name in target.name]
        return "; ".join(
            f"{number(t.value)}, promised at least {t.at_least:g}: {'missed' if t.failure else 'kept'}" for t in found
        )

    return value


def _gate_rows(report: Report, op: str) -> dict[tuple[Any, ...], dict[str, GateTiming]]:
    """The timings of an op by what was timed, then by form."""
    rows: dict[tuple[Any, ...], dict[str, GateTiming]] = {}
    for gate in picked(report.gates, op=op):
        if gate.times:
            rows.setdefault((gate.variant, *gate.shape, gate.cuda_graph, gate.sets), {})[gate.form] = gate
    return rows


def _gains(form: str, op: str, chosen: Callable[[GateTiming], bool]) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        cells = []
        for forms in _gate_rows(report, op).values():
            ours, other = forms.get(KERNEL), forms.get(form)
            if ours and other and ours.times and other.times and chosen(ours):
                cells.append(f"{_gate_name(ours)}: {number(other.times.p50 / ours.times.p50)}")
        return "; ".join(cells)

    return value


def _shares(report: Report) -> str:
    if not report.copies:
        return ""
    possible = max(copy.gb_per_s for copy in report.copies)
    kernels = [gate for gate in picked(report.gates, op="MutualGate", form=KERNEL) if _is_large(gate) and gate.gb_per_s]
    return "; ".join(f"{gate.variant} {number(gate.gb_per_s / possible)}" for gate in kernels)


def _at_batch_one(report: Report) -> str:
    cells = []
    for forms in _gate_rows(report, "MutualGate").values():
        if any(_is_large(gate) for gate in forms.values()):
            continue
        replayed = "graph" if next(iter(forms.values())).cuda_graph else "no graph"
        times = ", ".join(f"{form} {microseconds(gate.times)}" for form, gate in forms.items() if gate.times)
        cells.append(f"{replayed}: {times}")
    return "; ".join(cells)


def _is_large(gate: GateTiming) -> bool:
    return gate.shape[0] > 1


def _any(gate: GateTiming) -> bool:
    return True


def _gate_name(gate: GateTiming) -> str:
    layout = " hwc8" if "hwc8" in gate.variant else ""
    return "x".join(map(str, gate.shape[1:])) + layout


def _agreement(report: Report) -> str:
    if not report.checks:
        return ""
    failed = sum(bool(check.failure) for check in report.checks)
    worst: dict[str, float] = {}
    for check in report.checks:
        if check.max_error is not None:
            worst[check.op] = max(worst.get(check.op, 0.0), check.max_error / check.limit)
    shares = ", ".join(f"{op} {number(share)}" for op, share in worst.items())
    return f"{len(report.checks) - failed} of {len(report.checks)} problems; largest error over its limit: {shares}"


def _native(tool: str, wanted: str = "") -> Callable[[Report], str]:
    def value(report: Report) -> str:
        tests = [test for test in picked(report.native_tests, tool=tool) if wanted in test.name]
        return ", ".join(f"{test.name} {test.outcome}" for test in tests)

    return value


def gate_table(report: Report) -> str:
    rows = []
    for op in dict.fromkeys(gate.op for gate in report.gates):
        for forms in _gate_rows(report, op).values():
            for form, gate in forms.items():
                times = gate.times
                assert times is not None
                rows.append(
                    [
                        f"{op}, {gate.variant}",
                        "x".join(map(str, gate.shape)),
                        form + (", graph" if gate.cuda_graph else ""),
                        f"{gate.sets} x {gate.set_bytes / 1e6:.1f}",
                        f"{microseconds(times)} ({number(1e3 * times.p10)} to {number(1e3 * times.p90)})",
                        f"{gate.gb_per_s:.0f}",
                    ]
                )
    return table(("op", "shape", "form", "sets x MB", "median (p10 to p90)", "GB/s"), rows) if rows else ""


def _fastest(network: str) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        cells = []
        timed = [timing for timing in picked(report.networks, network=network) if timing.times]
        for shape in dict.fromkeys(tuple(timing.shape) for timing in timed):
            best = min(picked(timed, shape=list(shape)), key=lambda timing: timing.times.p50)
            cells.append(f"{_size(best)}: {milliseconds(best.times)} ({best.mode})")
        return "; ".join(cells)

    return value


def _gate_in_neck(report: Report) -> str:
    gates = [g for g in picked(report.gates, op="MutualGate", cuda_graph=True) if g.times and not _is_large(g)]
    necks = [n for n in picked(report.networks, network="GLMD neck") if n.times and "CUDA graph" in n.mode]
    cells = []
    for neck in necks:
        for gate in gates:
            if gate.shape == neck.shape:
                cells.append(f"{gate.form} {100 * gate.times.p50 / neck.times.p50:.1f} % of {neck.mode}")
    return "; ".join(cells)


def network_table(report: Report) -> str:
    rows = [
        [timing.network, _size(timing), timing.mode, milliseconds(timing.times), f"{timing.max_difference:.1e}"]
        for timing in report.networks
        if timing.times and timing.max_difference is not None
    ]
    return table(("network", "size", "in torch", "ms, median / p99", "difference from FP32"), rows) if rows else ""


def _size(timing: NetworkTiming) -> str:
    return "x".join(map(str, timing.shape))


KERNELS = (
    Figure("kernels against float64", "`checks[].max_error`", "checks", _agreement),
    Figure("C++ tests of the kernels", "`native_tests[]`, tool `ctest`", "tests", _native("ctest", "kernels")),
    Figure(
        "TensorRT plugins: `enqueue` and the loading tests",
        "`native_tests[]`, names `tensorrt.*`",
        "tests",
        _native("ctest", "tensorrt"),
    ),
    Figure(
        "GPU tests under compute-sanitizer",
        "`native_tests[]`, tool `compute-sanitizer`",
        "sanitizer",
        _native("compute-sanitizer"),
    ),
    Figure("device-to-device copy, read and written", "`copies[].gb_per_s`", "gates", _copy),
    Figure("MutualGate, FP16, share of the copy bandwidth (0.85)", "`targets[]`", "gates", _target("bandwidth")),
    Figure("MutualGate, FP16, speed over eager torch (2.3)", "`targets[]`", "gates", _target("eager")),
    Figure(
        "MutualGate, FP16, speed over torch.compile",
        "`gates[].times`, form `torch.compile`",
        "gates",
        _gains(COMPILED, "MutualGate", lambda gate: _is_large(gate) and gate.variant == "float16, linear"),
    ),
    Figure("MutualGate by types and layouts, share of the copy bandwidth", "`gates[].gb_per_s`", "gates", _shares),
    Figure("MutualGate, FP16, 1x1024x50x76", "`gates[].times`, batch 1", "gates", _at_batch_one),
    *(
        Figure(
            f"{op} on MSHNet's maps, FP16, speed over {other}",
            f"`gates[].times`, form `{form}`",
            "gates",
            _gains(form, op, _any),
        )
        for op in ("SpatialGate", "ChannelGate")
        for form, other in ((EAGER, "eager torch"), (COMPILED, COMPILED))
    ),
)
NETWORKS = (
    Figure(
        "MSHNet in FP32, TF32, FP16, channels last, CUDA graph, torch.compile: fastest, ms, median / p99",
        "`networks[].times`",
        "networks",
        _fastest("MSHNet"),
    ),
    Figure(
        "GLMD neck in the same modes: fastest, ms, median / p99",
        "`networks[].times`",
        "networks",
        _fastest("GLMD neck"),
    ),
    Figure(
        "MutualGate as a share of the neck's time", "`gates[].times`, `networks[].times`", "networks", _gate_in_neck
    ),
)
