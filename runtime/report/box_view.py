"""What a page and a table show of detectors that give boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irforge.metrics import SIZE_BUCKETS
from irforge.runtime.report.figures import BoxAccuracy, BoxParity, BoxRates
from irforge.runtime.report.markup import Cell, Row, interval_cell
from irforge.runtime.report.schema import Model
from irforge.runtime.report.wording import (
    NOT_MEASURED,
    count,
    hundredths,
    percent,
    plural,
    scientific,
    signed,
    size_name,
)

_FALSE = "False boxes per 100"
_SIZES = tuple(size_name(bucket.name) for bucket in SIZE_BUCKETS)

SUMMARY = ("F1", "AP50", "Pd", _FALSE)
TERMINAL = ("F1", "Pd", "False")
LEGEND = "F1 (at IoU 0.5), Pd: %. False: boxes per 100 frames."
AT_THRESHOLD = (
    *("F1 at IoU 0.5", "F1 at IoU 0.3", "F1 within 3 px", "Pd", "Found", "Centre error px", _FALSE),
    *("False alarms per hour", "Threshold", "Frames"),
)
OVER_SCORES = ("AP", "AP50", "AP75", *(f"AP, {name}" for name in _SIZES))
PARITY = (
    *("Pairs", "Max |Δbox| px", "Max |Δscore|", "No partner", "Flipped", "F1", "AP", "AP50", f"AP, {_SIZES[0]}"),
    *("Pd", "Centre p95 px", _FALSE),
)
PARITY_NOTE = (
    "F1, AP and Pd: difference in points, candidate minus reference. Detections of more than a tenth of the threshold "
    "are paired one to one with the reference's. No partner: only the reference's + only the candidate's. Flipped: on "
    "the other side of the threshold."
)
READING = (
    "F1 joins precision (P) and recall (R) at the threshold, where a box is right by its IoU with a true box, or by "
    "the distance of their centres. By the latter, below 3 pixels and one to one, also Pd, the share of targets found, "
    "the error of their centres (median, and below it the 95th percentile), and false boxes. AP is COCO's: the mean "
    "over IoU 0.50 to 0.95 and over all scores; a size class counts true boxes of that area. False alarms per hour "
    "come from frames without a target, with the exact 95 % Poisson interval. All in frame pixels. Points are "
    "hundredths: 74.0 % to 73.5 % is −0.50 points."
)


def summary(accuracy: BoxAccuracy) -> Row:
    rates = (accuracy.iou50.f1, accuracy.ap50, accuracy.pd)
    return [*(percent(rate, 1) for rate in rates), f"{accuracy.false_boxes_per_100_frames:.1f}"]


def terminal(accuracy: BoxAccuracy) -> Row:
    return [hundredths(accuracy.iou50.f1), hundredths(accuracy.pd), f"{accuracy.false_boxes_per_100_frames:.1f}"]


def at_threshold(model: Model) -> Row:
    result = model.accuracy
    assert isinstance(result, BoxAccuracy)
    return [
        *(_rates(rates) for rates in (result.iou50, result.iou30, result.centre)),
        interval_cell(result),
        f"{count(result.found)} of {count(result.targets)}",
        Cell(_pixels(result.centre_error_median), f"p95 {_pixels(result.centre_error_p95)}"),
        f"{result.false_boxes_per_100_frames:.1f}",
        _alarms(result),
        f"{model.threshold:.3g}",
        count(result.frames),
    ]


def _rates(rates: BoxRates) -> Cell:
    return Cell(percent(rates.f1, 1), f"P {hundredths(rates.precision)}, R {hundredths(rates.recall)}")


def _alarms(result: BoxAccuracy) -> Cell:
    alarms = result.alarms
    if alarms is None:
        return Cell(NOT_MEASURED, "no frame without a target")
    low, high = (count(round(value)) for value in alarms.interval)
    there = f"{low} to {high}; {plural(alarms.alarms, 'alarm')} in {plural(alarms.frames, 'frame')}"
    return Cell(count(round(alarms.per_hour)), f"{there}, {alarms.frame_rate:g} Hz")


def _pixels(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2f}"


def over_scores(model: Model) -> Row:
    result = model.accuracy
    assert isinstance(result, BoxAccuracy)
    sizes = [Cell(percent(size.ap), plural(size.targets, "target")) for size in result.ap_by_size]
    return [percent(result.ap), percent(result.ap50), percent(result.ap75), *sizes]


def parity(result: BoxParity) -> Row:
    boxes = result.boxes
    faulty = Cell("not finite", plural(boxes.not_finite, "box", "boxes"), style="bad")
    return [
        faulty if boxes.not_finite else count(boxes.pairs),
        scientific(boxes.max_box),
        scientific(boxes.max_score),
        Cell(f"{count(boxes.only_reference)} + {count(boxes.only_candidate)}", f"{count(boxes.alone)} above threshold"),
        count(boxes.flipped),
        signed(result.f1_points),
        signed(result.ap_points),
        signed(result.ap50_points),
        signed(result.smallest_ap_points),
        signed(result.pd_points),
        signed(result.centre_error_p95),
        signed(result.false_boxes_per_100_frames, 1),
    ]


def change(result: BoxParity) -> str:
    if result.f1_points is None:
        return ""
    return f"{signed(result.f1_points)} points of F1, {signed(result.pd_points)} of Pd"


def moves(cost: Mapping[str, Any]) -> str:
    crossed = f"{cost['crossed']:.1f} boxes in 100 frames cross the threshold"
    return f"{crossed}, boxes and scores move by {cost['difference']:.3f} a frame"
