"""What a page and a table show of detectors that give a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irforge.runtime.report.figures import MaskAccuracy, MaskParity
from irforge.runtime.report.markup import Cell, Markup, Row, interval_cell, text
from irforge.runtime.report.schema import Model
from irforge.runtime.report.wording import count, hundredths, percent, scientific, signed

_FALSE = "False px per 100"

SUMMARY = ("IoU", "Pd", _FALSE)
TERMINAL = ("IoU", "Pd", "False")
LEGEND = "IoU, Pd: %. False: pixels per 100 frames."
ACCURACY = ("IoU", "nIoU", "Pd", "Found", "Fa, 10⁻⁶", _FALSE, "Threshold", "Frames")
PARITY = ("Output", "Max |Δ|", "Mean |Δ|", "Pixels flipped", "IoU", "nIoU", "Pd", _FALSE)
PARITY_NOTE = "IoU, nIoU and Pd: difference in points, candidate minus reference."
READING = (
    "IoU pools all frames; nIoU is the mean over frames. Pd is the share of targets (8-connected) whose centre a "
    "detection hits within 3 pixels, one to one. False pixels belong to detections without a target; Fa is their share "
    "of all pixels. Points are hundredths: 74.0 % to 73.5 % is −0.50 points."
)


def summary(accuracy: MaskAccuracy) -> Row:
    return [percent(accuracy.iou, 1), percent(accuracy.pd, 1), f"{accuracy.false_pixels_per_100_frames:.1f}"]


def terminal(accuracy: MaskAccuracy) -> Row:
    return [hundredths(accuracy.iou), hundredths(accuracy.pd), f"{accuracy.false_pixels_per_100_frames:.0f}"]


def accuracy(model: Model) -> Row:
    result = model.accuracy
    assert isinstance(result, MaskAccuracy)
    return [
        percent(result.iou),
        percent(result.niou),
        interval_cell(result),
        f"{count(result.found)} of {count(result.targets)}",
        f"{result.fa * 1e6:.2f}",
        f"{result.false_pixels_per_100_frames:.1f}",
        f"{model.threshold:g}",
        count(result.frames),
    ]


def parity(result: MaskParity) -> Row:
    (output,) = result.outputs
    return [
        Markup(f"<code>{text(output.name)}</code>"),
        Cell("not finite", style="bad") if output.not_finite else scientific(output.max_abs),
        scientific(output.mean_abs),
        Cell(count(output.flipped_pixels), f"{output.flipped_share * 1e6:.2f} in 10⁶"),
        signed(result.iou_points),
        signed(result.niou_points),
        signed(result.pd_points),
        signed(result.false_pixels_per_100_frames, 1),
    ]


def change(result: MaskParity) -> str:
    if result.iou_points is None:
        return ""
    return f"{signed(result.iou_points)} points of IoU, {signed(result.pd_points)} of Pd"


def moves(cost: Mapping[str, Any]) -> str:
    crossed = f"{cost['crossed']:.1f} px in 100 frames cross the threshold"
    return f"{crossed}, |Δp| sums to {cost['difference']:.3f} a frame"
