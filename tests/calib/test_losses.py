"""Which targets are lost and which alarms are new between two answers."""

from __future__ import annotations

import numpy as np

from irforge.calib.losses import events, in_100_frames
from irforge.datasets.base import BoxTruth
from irforge.detections import Detections


def detections(*rows: tuple[float, float, float], classes: tuple[int, ...] = ()) -> Detections:
    """Boxes of 3 pixels at (x, y) with a score."""
    boxes = np.array([[x, y, x + 3, y + 3] for x, y, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in rows], np.float32)
    return Detections(boxes, scores, np.array(classes or [0] * len(rows), np.int64))


def truth(*corners: tuple[float, float]) -> BoxTruth:
    boxes = np.array([[x, y, x + 3, y + 3] for x, y in corners], np.float32).reshape(-1, 4)
    return BoxTruth(boxes, np.zeros(len(corners), np.int64))


def kinds(before: Detections, after: Detections, true: BoxTruth | None) -> list[tuple[str, float]]:
    return [(event.kind, event.box[0]) for event in events(before, after, true, "frame")]


BEFORE = detections((10, 10, 0.9), (40, 10, 0.8), (70, 10, 0.7))


def test_without_truth_every_detection_counts_as_a_target() -> None:
    after = detections((10, 11, 0.6), (70, 10, 0.9), (100, 50, 0.6))
    assert kinds(BEFORE, after, None) == [("lost", 40), ("alarm", 100)]


def test_with_truth_a_false_alarm_that_goes_is_no_loss_and_a_target_that_comes_is_no_alarm() -> None:
    after = detections((70, 10, 0.9), (100, 50, 0.6), (130, 50, 0.6))
    assert kinds(BEFORE, after, truth((10, 10), (70, 10), (100, 50))) == [("lost", 10), ("alarm", 130)]


def test_a_target_found_elsewhere_within_three_pixels_is_not_lost() -> None:
    """FP32 lies left of the target and INT8 right of it: 4 pixels between them, and both found it."""
    before, after = detections((8, 10, 0.9)), detections((12, 10, 0.9))
    assert kinds(before, after, truth((10, 10))) == []
    assert kinds(before, after, None) == [("lost", 8), ("alarm", 12)]


def test_a_target_under_another_class_is_lost() -> None:
    after = detections((10, 10, 0.9), (40, 10, 0.8), (70, 10, 0.7), classes=(0, 1, 0))
    assert kinds(BEFORE, after, truth((10, 10), (40, 10), (70, 10))) == [("lost", 40)]


def test_events_name_frame_box_and_score_and_are_counted_in_100_frames() -> None:
    (event,) = events(BEFORE, detections((10, 10, 0.9), (70, 10, 0.9)), None, "sky")
    assert (event.frame, event.box, event.score) == ("sky", (40, 10, 43, 13), 0.8)
    assert in_100_frames([event], "lost", 4) == 25
    assert in_100_frames([event], "alarm", 4) == 0


def test_nothing_found_at_all_loses_everything_and_gains_nothing() -> None:
    assert [kind for kind, _ in kinds(BEFORE, Detections.empty(False), None)] == ["lost"] * 3
    assert kinds(Detections.empty(False), Detections.empty(False), truth((10, 10))) == []
