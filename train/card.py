"""The model card of published weights, written from their contract."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from irforge.contract import Contract, DataNote, Metric
from irforge.train.detectors.registry import find_detector


def model_card(contract: Contract, path: str | os.PathLike[str], note: str = "") -> str:
    """Markdown: what it is, how it was trained, on which data under which licence, and what was measured."""
    provenance = contract.provenance
    height, width = contract.input.size
    lines = [
        f"# {find_detector(provenance.detector).title}: {Path(path).name}",
        "",
        f"Takes gray frames of {contract.input.bit_depth} bits, resized to {width}x{height}"
        f" ({contract.input.fit.kind}, {contract.input.resize}); returns a probability for each pixel."
        f" Targets are the {contract.output.connectivity}-connected components of"
        f" p > {contract.output.score_threshold:g}.",
        "",
        f"- Recipe: `{provenance.recipe}` (sha256 `{provenance.recipe_sha256[:16]}`), seed {provenance.seed},"
        f" {provenance.epochs} epochs (an epoch is as long as the recipe's stage says).",
        *(_ancestor(step) for step in provenance.history if step["tool"] == "fit"),
        f"- Network options: {', '.join(f'{k} = {v}' for k, v in provenance.network.items())}.",
        "- Weights: kernels in FP16, biases and batch norm in FP32; measured after that rounding.",
    ]
    if note:
        lines.append(f"- {note}")
    lines += ["", "## Data", "", "| used for | data | frames | licence |", "|---|---|---|---|"]
    lines += [_data_row("training", part) for part in provenance.trained_on]
    lines += [_data_row("validation (choice of epoch)", part) for part in provenance.validated_on]
    lines += ["", "No frame of a test list was trained on or used for a choice.", "", "## Measured", ""]
    lines += [*_table(provenance.metrics), ""]
    lines += [
        "IoU is pooled over pixels; nIoU is the mean over frames; Pd counts targets whose centre is found within 3 px;",
        "Fa is the share of pixels in unmatched detections. `squash` resizes frame and mask to the input size and",
        "scores there (MSHNet's protocol); `native` pads the frame at its own size and scores it so (BasicIRSTD's).",
        "",
    ]
    return "\n".join(lines)


def _ancestor(step: dict[str, Any]) -> str:
    return (
        f"- Started from the weights of `{step['recipe']}` (recipe sha256 `{step['recipe_sha256'][:16]}`, weights"
        f" `{step['weights_sha256'][:16]}`) after {step['epochs']} epochs."
    )


def _data_row(use: str, part: DataNote) -> str:
    return f"| {use} | {part.name}:{part.split} | {part.frames} | {part.licence} |"


def _table(metrics: list[Metric]) -> list[str]:
    names = list(dict.fromkeys(metric.name for metric in metrics))
    rows: dict[tuple[str, str, int], dict[str, float]] = {}
    for metric in metrics:
        rows.setdefault((metric.data, metric.protocol, metric.frames), {})[metric.name] = metric.value
    header = [f"| data | protocol | n | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    return header + [
        f"| {data} | {protocol} | {frames} | {' | '.join(_figure(name, values) for name in names)} |"
        for (data, protocol, frames), values in rows.items()
    ]


def _figure(name: str, values: dict[str, float]) -> str:
    if name not in values:
        return ""
    return f"{values[name] * 1e6:.2f}e-6" if name == "Fa" else f"{values[name]:.4f}"
