"""Renders docs/gpu-validation.md: `python benchmarks/gpu/render.py [OUT/gpu.json...] [-o docs/gpu-validation.md]`.

Several files are runs of different steps on the same kind of GPU. Without any, every figure is named with the place
that it will come from. The last part of the page, what is known without a GPU, is known.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.engine_figures import ENGINES
from benchmarks.gpu.figures import Figure, cell, table
from benchmarks.gpu.kernel_figures import KERNELS, NETWORKS, gate_table, network_table
from benchmarks.gpu.neck_figures import NECK, neck_table
from benchmarks.gpu.records import Report
from irforge.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu-validation.md"
KNOWN = Path(__file__).resolve().parent / "known.md"
PENDING = "not yet measured on a GPU"

UNMEASURED = f"""\
Nobody has run irforge's kernels and engines on a GPU yet. What can be known without one is known (below, and held by
tests); the rest stands here as "{PENDING}", with the place that its figure will come from. Whoever
has an NVIDIA GPU: one script, under 10 minutes, and its `gpu.json` is welcome.
"""
HOW = """\
```
benchmarks/gpu/run.sh OUT                                          # builds, checks, times; OUT/gpu.json
python benchmarks/gpu/render.py OUT/gpu.json                       # writes this page
```

The files of this page are in `benchmarks/gpu/measured`: `render.py` takes several, each with other steps.

The script runs from a bare checkout with PyTorch, NumPy and a CUDA toolkit, installs nothing and needs no network. It
builds the [kernels](../plugins/kernels), holds them against float64, times them against torch, runs their C++ tests,
and times MSHNet and the GLMD neck in torch. On other backends they need the package's own requirements and a backend:
`pip install 'irforge[gpu,tensorrt]'`, or `irforge[gpu,rtx]`, or both. What is missing is listed as skipped. Where
TensorRT's headers lie elsewhere, set `TENSORRT_ROOT` (it has `include/NvInfer.h`): then the plugins are built and run
too. On a GPU that is lent for minutes, `--only STEP` and `--most STEP=SECONDS` spend them.

A machine that has no pydantic and no network gets it from another one: `benchmarks/gpu/bundle.sh` unpacks it there into
`build/bare-site`, which git ignores, so copy it along. `run.sh` then finds it, and training runs from the checkout as
`PYTHONPATH=.:build/bare-site python3 train/fit.py RECIPE.yaml --data DATA`.
"""
METHOD = """\
Times are of CUDA events: medians of 20 to 500 samples after a warm-up. Bandwidth counts what an op must move: inputs
read once, outputs written once. Large problems take turns over sets of tensors that together are more than three L2
caches; the possible bandwidth is that of the fastest device-to-device copy of the same run, bytes read and written.
SpatialGate and ChannelGate at batch 1 find their input in the L2 cache, as in a network. Eager torch is the formula as
anyone would write it, `torch.cat([g * torch.sigmoid(l), l * torch.sigmoid(g)], 1)`.
"""
NECK_METHOD = """\
The neck is exported by itself, with random weights; the 31 million of them are too many to travel with a bare checkout,
so the machine needs what `pip install 'irforge[train]'` brings. "Body" is the graph as exported, "body, merged" has one
3x3 convolution in place of the two behind the gate, "plugin" is what `irforge fuse` makes of it, run by our native
operators. Every form is held to torch in FP32 on the CPU. The clocks are those of the engines: the GPU's own around the
computation, and the host's from array to array, both copies included (31 MB at 50x76); ONNX Runtime has only the
host's.
"""
SECTIONS: tuple[tuple[str, tuple[Figure, ...], str, Callable[[Report], str] | None], ...] = (
    ("Kernels", KERNELS, METHOD, gate_table),
    ("Networks in torch", NETWORKS, "", network_table),
    ("The GLMD neck on every backend", NECK, NECK_METHOD, neck_table),
    ("Engines", ENGINES, "", None),
)


def render(report: Report | None) -> str:
    """The whole page."""
    parts = ["# GPU validation\n", UNMEASURED if report is None else _machine(report), HOW]
    for title, figures, method, details in SECTIONS:
        rows = [[figure.name, _value(figure, report), figure.where] for figure in figures]
        parts.append(f"## {title}\n\n" + table(("figure", "value", "where in `OUT/gpu.json`"), rows))
        parts.append(method)
        if report is not None and details is not None:
            parts.append(details(report))
    if report is not None:
        parts += _notes(report)
    parts.append(KNOWN.read_text())
    return "\n".join(part for part in parts if part)


def _value(figure: Figure, report: Report | None) -> str:
    if report is None:
        return PENDING
    if value := figure.value(report):
        return cell(value)
    reasons = [note.reason for note in (*report.failed, *report.skipped) if note.step == figure.step]
    return f"{PENDING}: {cell(reasons[0])}" if reasons else PENDING


def _machine(report: Report) -> str:
    gpu, versions = report.gpu, report.versions
    cache = f", {report.l2_bytes / 2**20:.0f} MiB of L2 cache" if report.l2_bytes else ""
    software = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"Measured on {report.date[:10]}: {gpu['name']}, SM {gpu['compute_capability']},"
        f" {gpu['memory_bytes'] / 2**30:.0f} GiB{cache}; {software}.\n"
    )


def _notes(report: Report) -> Iterable[str]:
    if failures := report.failures():
        yield "## What failed\n\n" + "".join(f"- {cell(line)}\n" for line in failures)
    if report.skipped:
        lines = dict.fromkeys(f"- {note.step}: {cell(note.reason)}\n" for note in report.skipped)
        yield "## What was skipped\n\n" + "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render docs/gpu-validation.md from the figures of a GPU run.")
    parser.add_argument("figures", type=Path, nargs="*", help="gpu.json; without it, every figure is named as pending")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    options = parser.parse_args()
    reports = [Report.read(path) for path in options.figures]
    write_text(options.output, render(reduce(Report.joined, reports) if reports else None))


if __name__ == "__main__":
    main()
