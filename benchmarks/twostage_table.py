"""What `benchmarks/twostage.py` measured, as Markdown."""

from __future__ import annotations

from statistics import median

from benchmarks.twostage_cases import BOXES, CASES, ENCODERS, Figures


def tables(results: Figures) -> str:
    """What was measured as Markdown, a table a part."""
    lines: list[str] = []
    if macs := results.get("macs"):
        rows = [[CASES[name].title, *_size(CASES[name].size), f"{macs[name] / 1e9:.1f}", ""] for name in CASES]
        for name, title in ENCODERS.items():
            each = [macs[name] * (1 if name == "efficientnet-lite0" else boxes) for boxes in BOXES]
            shares = ", ".join(f"{count / macs['full']:.2g}" for count in each)
            rows.append([title, "", f"{macs[name] / 1e9:.1f}", shares])
        title = f"as a multiple of the full detector, N = {', '.join(map(str, BOXES))}"
        lines += _table(["", "size", "GMAC", title], rows)
    if train := results.get("train"):
        rows = [[*_case(n), f"{f['trained'] / 1e6:.1f} M", *_cost(f)] for n, f in train.items() if n in CASES]
        lines += _table(["one training step", "size", "trained parameters", "s", "peak memory, MiB"], rows)
    if infer := results.get("infer"):
        rows = [
            [*_case(name), how, *_cost(forms[how])]
            for name, forms in infer.items()
            if name in CASES
            for how in ("torch", "onnxruntime")
        ]
        lines += _table(["one frame", "size", "in", "s", "peak memory, MiB"], rows)
    if rescored := results.get("rescore"):
        rows = [
            [title, str(boxes), *_cost(rescored[encoder][str(boxes)])]
            for encoder, title in ENCODERS.items()
            if encoder in rescored
            for boxes in BOXES
        ]
        lines += _table(["encoder", "N", "s", "peak memory, MiB"], rows)
    if gate := results.get("gate"):
        rows = [
            [
                f"{CASES[name].title}, {kind}",
                *_size(CASES[name].size),
                str(forms[kind]["kernels"]),
                f"{forms[kind]['activation_bytes'] / 2**20:.0f}",
                f"{forms[kind]['weight_bytes'] / 2**20:.0f}",
                f"{forms[kind]['moved_bytes'] / 2**20:.0f}",
                forms[kind]["reads"],
            ]
            for name, forms in gate.items()
            if name in CASES
            for kind in ("fp32", "fp16")
        ]
        heads = ["compiled for SM 8.9", "size", "kernels", "peak activations, MiB", "weights, MiB", "moved, MiB"]
        lines += _table([*heads, "weighted layers read"], rows)
    return "\n".join(lines)


def _size(size: tuple[int, int]) -> list[str]:
    return [f"{size[0]}x{size[1]}"]


def _case(name: str) -> list[str]:
    return [CASES[name].title, *_size(CASES[name].size)]


def _cost(figures: Figures) -> list[str]:
    peak = figures.get("peak_device_bytes") or figures["peak_bytes"]
    return [f"{median(figures['seconds']):.2f}", f"{peak / 2**20:.0f}"]


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    line = "| " + " | ".join(heads) + " |"
    return [line, "|" + "---|" * len(heads), *("| " + " | ".join(row) + " |" for row in rows), ""]
