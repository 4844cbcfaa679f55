"""The model card of published weights, written from their contract."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from irforge.contract import Contract, DataNote, InputSpec, Metric, OutputSpec
from irforge.train.detectors.registry import find_detector


def model_card(contract: Contract, path: str | os.PathLike[str], note: str = "") -> str:
    """Markdown: what it is, how it was trained, on which data under which licence, and what was measured."""
    provenance = contract.provenance
    lines = [
        f"# {find_detector(provenance.detector).title}: {Path(path).name}",
        "",
        f"Takes gray frames of {contract.input.bit_depth} bits, {_fitted(contract.input)}; {_returns(contract.output)}",
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
    lines += [*_EXPLAINED[contract.output.kind], *_PROTOCOLS, ""]
    return "\n".join(lines)


_EXPLAINED = {
    "mask": (
        "IoU is pooled over pixels; nIoU is the mean over frames; Pd counts targets whose centre is found within 3 px;",
        "Fa is the share of pixels in unmatched detections.",
    ),
    "boxes": (
        "AP is COCO's (IoU 0.50 to 0.95), over all scores. F1, Pd and false boxes are counted at the score threshold;",
        "Pd, false boxes and centre errors by the rule that a detection is right if the centres of the two boxes are",
        "less than 3 px apart. mNoCoAP reads the contrast map between pixel centres, `legacy` as published code does.",
    ),
}
_PROTOCOLS = (
    "`squash` scores frames as the contract fits them to the input size (MSHNet's protocol, for masks at that size);",
    "`native` pads the frame at its own size and scores it so (BasicIRSTD's).",
)


def _fitted(spec: InputSpec) -> str:
    height, width = spec.size
    if spec.fit.kind == "pad-to-multiple":
        return f"at their own size, padded (to {width}x{height} unless exported at another size)"
    return f"resized to {width}x{height} ({spec.fit.kind}, {spec.resize})"


def _returns(output: OutputSpec) -> str:
    if output.kind == "boxes":
        return f"returns boxes in frame pixels. Detections are those of score > {output.score_threshold:.4g}."
    return (
        f"returns a probability for each pixel. Targets are the {output.connectivity}-connected components of"
        f" p > {output.score_threshold:g}."
    )


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
