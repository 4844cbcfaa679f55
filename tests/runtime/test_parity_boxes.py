"""Promises of the parity check for detectors that give boxes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.contract import Contract
from irforge.datasets import BoxTruth, Sample
from irforge.errors import ArtifactError, CheckFailed
from irforge.runtime.limits import LIMITS
from irforge.runtime.parity import compare
from irforge.runtime.report.figures import BoxAccuracy, BoxParity
from irforge.runtime.tally_boxes import filled, size_class
from irforge.session import TensorInfo, Timings
from tests.box_model import SLOTS, box_contract

SIZE = 64
Row = tuple[float, float, float, float, float]


class Answering:
    """A Session that gives listed detections, (left, top, right, bottom, score), one list a frame."""

    backend = device = "test"
    thread_rule = "any thread"
    custom_ops = ""
    last_timings: Timings | None = None
    inputs: Mapping[str, TensorInfo] = {"frames": TensorInfo("uint8", (1, 1, SIZE, SIZE))}
    outputs: Mapping[str, TensorInfo] = {}

    def __init__(self, *frames: list[Row], slots: int = SLOTS) -> None:
        self.frames = list(frames)
        self.slots = slots

    def run(self, feeds, out=None):
        table = np.zeros((self.slots, 5), np.float32)
        rows = self.frames.pop(0)
        table[: len(rows)] = np.array(rows, np.float32).reshape(-1, 5)
        return {
            "boxes": table[None, :, :4],
            "scores": table[None, :, 4],
            "classes": np.zeros((1, self.slots), np.int64),
        }

    def close(self) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def contract() -> Contract:
    return box_contract((SIZE, SIZE))


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., Sample]:
    """A frame with true boxes; `truth=False` leaves nothing known of it."""

    def make(
        *boxes: tuple[float, float, float, float], name: str = "a", truth: bool = True, size=(SIZE, SIZE)
    ) -> Sample:
        frame = np.full(size, 40, np.uint8)
        for left, top, right, bottom in boxes:
            frame[int(top) : int(bottom), int(left) : int(right)] = 200
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), frame)
        table = np.array(boxes, np.float32).reshape(-1, 4)
        return Sample(name, path, box_truth=BoxTruth(table, np.zeros(len(table), np.int64)) if truth else None)

    return make


def judged(contract: Contract, reference: Answering, candidate: Answering, samples: list[Sample], **settings):
    result = compare(reference, {"c": candidate}, samples, contract, **settings)
    accuracy, parity = result.candidates["c"]
    assert isinstance(parity, BoxParity)
    return result.reference, accuracy, parity


SMALL, LARGE = (10.0, 10.0, 13.0, 13.0), (30.0, 30.0, 42.0, 42.0)
BOTH: list[Row] = [(*SMALL, 0.9), (*LARGE, 0.8)]


def test_equal_answers_differ_in_nothing(contract, sample) -> None:
    base, accuracy, parity = judged(
        contract, Answering(BOTH), Answering(BOTH[::-1]), [sample(SMALL, LARGE)], limits={"c": LIMITS["boxes"]["fp32"]}
    )
    assert isinstance(accuracy, BoxAccuracy) and accuracy == base
    assert accuracy.iou50.f1 == accuracy.iou30.f1 == accuracy.centre.f1 == accuracy.pd == 1
    assert accuracy.ap == pytest.approx(1) and accuracy.centre_error_p95 == 0
    boxes = parity.boxes
    assert (boxes.pairs, boxes.max_box, boxes.max_score, boxes.only_reference, boxes.only_candidate) == (2, 0, 0, 0, 0)
    assert parity.f1_points == parity.ap_points == parity.pd_points == parity.centre_error_p95 == 0
    assert parity.passed and not parity.changes
    assert [check.name for check in parity.checks] == [
        "not finite",
        "max |Δbox|",
        "max |Δscore|",
        "boxes above the threshold without a partner",
    ]


def test_a_move_beyond_the_limit_of_fp32_fails_and_is_named(contract, sample) -> None:
    moved: list[Row] = [(10, 10, 13, 13.0625, 0.9), (*LARGE, 0.8)]
    limits = {"c": LIMITS["boxes"]["fp32"]}
    _, _, parity = judged(contract, Answering(BOTH), Answering(moved), [sample(SMALL, LARGE)], limits=limits)
    assert parity.boxes.max_box == 0.0625
    assert [check.name for check in parity.checks if not check.passed] == ["max |Δbox|"]
    result = compare(Answering(BOTH), {"c": Answering(moved)}, [sample(SMALL, LARGE)], contract, limits=limits)
    with pytest.raises(CheckFailed, match=r"'c' against 'reference': max \|Δbox\| 0\.0625 px, limit 0\.05"):
        result.require()


def test_scores_are_compared_pair_by_pair_and_crossings_counted(contract, sample) -> None:
    other: list[Row] = [(*SMALL, 0.45), (*LARGE, 0.8)]
    _, _, parity = judged(contract, Answering(BOTH), Answering(other), [sample(SMALL, LARGE)])
    assert parity.boxes.max_score == pytest.approx(0.45) and parity.boxes.flipped == 1


def test_what_scores_less_than_a_tenth_of_the_threshold_is_not_compared(contract, sample) -> None:
    dim: list[Row] = [*BOTH, (50, 50, 53, 53, 0.049)]
    seen: list[Row] = [*BOTH, (50, 50, 53, 53, 0.051)]
    far: list[Row] = [*BOTH, (5, 50, 8, 53, 0.049)]
    samples = [sample(SMALL, LARGE)]
    _, _, parity = judged(contract, Answering(dim), Answering(far), samples)
    assert (parity.boxes.floor, parity.boxes.pairs) == (0.05, 2)
    assert parity.boxes.only_reference == parity.boxes.only_candidate == 0
    _, _, parity = judged(contract, Answering(seen), Answering(dim), samples)
    assert parity.boxes.pairs == 3 and parity.boxes.only_reference == 0
    _, _, parity = judged(contract, Answering(seen), Answering(far), samples)
    assert (parity.boxes.only_reference, parity.boxes.only_candidate) == (1, 0)


def test_fp32_may_break_a_tie_below_the_threshold_and_lose_nothing_above_it(contract, sample) -> None:
    dim: list[Row] = [*BOTH, (50, 50, 53, 53, 0.4)]
    limits = {"c": LIMITS["boxes"]["fp32"]}
    _, _, parity = judged(contract, Answering(dim), Answering(BOTH), [sample(SMALL, LARGE)], limits=limits)
    assert (parity.boxes.only_reference, parity.boxes.alone) == (1, 0) and parity.passed
    result = compare(Answering(BOTH), {"c": Answering(BOTH[:1])}, [sample(SMALL, LARGE)], contract, limits=limits)
    assert result.candidates["c"][1].boxes.alone == result.candidates["c"][1].boxes.flipped == 1
    with pytest.raises(CheckFailed, match="boxes above the threshold without a partner 1, limit 0"):
        result.require()


def test_a_detection_that_found_no_slot_has_not_lost_its_partner(contract, sample) -> None:
    three: list[Row] = [*BOTH, (50, 50, 53, 53, 0.3)]
    other: list[Row] = [*BOTH, (5, 50, 8, 53, 0.31)]
    _, _, parity = judged(contract, Answering(three, slots=3), Answering(other, slots=3), [sample(SMALL, LARGE)])
    # The candidate's last slot scores 0.31, so that 0.30 may have been cut off there; 0.31 was not cut off at 0.30.
    assert (parity.boxes.only_reference, parity.boxes.only_candidate) == (0, 1)
    _, _, parity = judged(contract, Answering(three), Answering(other), [sample(SMALL, LARGE)])
    assert (parity.boxes.only_reference, parity.boxes.only_candidate) == (1, 1)


def test_lost_and_gained_targets_are_listed_by_size_and_place(contract, sample) -> None:
    base, accuracy, parity = judged(
        contract,
        Answering([(*SMALL, 0.9), (*LARGE, 0.2)]),
        Answering([(*LARGE, 0.8), (12, 10, 15, 13, 0.3)]),
        [sample(SMALL, LARGE, name="two")],
    )
    small, large = sorted(parity.changes, key=lambda change: change.area)
    assert (small.kind, small.frame, small.row, small.column, small.area) == ("lost", "two", 11, 11, 9)
    assert (large.kind, large.row, large.column, large.area) == ("gained", 35.5, 35.5, 144)
    assert (small.reference_peak, small.candidate_peak) == pytest.approx((0.9, 0.3))
    assert [(s.size_class, s.targets, s.lost, s.gained) for s in parity.by_size] == [
        ("up to 25 px2", 1, 1, 0),
        ("26 to 100 px2", 0, 0, 0),
        ("over 100 px2", 1, 0, 1),
    ]
    assert base.found == accuracy.found == 1 and parity.pd_points == 0


def test_size_classes_end_at_25_and_100_square_pixels() -> None:
    classes = [size_class(area) for area in (1, 25, 25.5, 100, 100.5)]
    assert classes == [*["up to 25 px2"] * 2, *["26 to 100 px2"] * 2, "over 100 px2"]


def test_crops_show_boxes_filled_with_their_scores(contract, sample) -> None:
    _, _, parity = judged(contract, Answering(BOTH), Answering([(*LARGE, 0.8), (*SMALL, 0.2)]), [sample(SMALL, LARGE)])
    planes = {}
    for name in ("frame", "truth", "reference", "candidate"):
        data = np.frombuffer(base64.b64decode(getattr(parity.changes[0].crop, name)), np.uint8)
        planes[name] = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    # The centre (11, 11) lies in the middle of 33 x 33 pixels.
    inside = np.s_[15:18, 15:18]
    assert (planes["truth"][inside] == 255).all() and (planes["frame"][inside] == 255).all()
    assert (planes["reference"][inside] == round(0.9 * 255)).all()
    assert (planes["candidate"][inside] == round(0.2 * 255)).all()
    assert not planes["candidate"][:15, :15].any()


def test_overlapping_boxes_show_the_higher_score() -> None:
    boxes = np.array([[0, 0, 2, 2], [1.2, 1.2, 2.7, 2.7]], np.float32)
    assert filled(boxes, np.array([0.75, 0.5], np.float32), (3, 4)).tolist() == [
        [0.75, 0.75, 0, 0],
        [0.75, 0.75, 0.5, 0],
        [0, 0.5, 0.5, 0],
    ]


def test_int8_is_held_to_f1_small_targets_and_centres(contract, sample) -> None:
    moved: list[Row] = [(10.5, 10, 13.5, 13, 0.9), (*LARGE, 0.8)]
    limits = {"c": LIMITS["boxes"]["int8"]}
    _, accuracy, parity = judged(contract, Answering(BOTH), Answering(moved), [sample(SMALL, LARGE)], limits=limits)
    found = {check.name: (check.value, check.passed) for check in parity.checks}
    # The overlap of the small box falls to 2.5 / 3.5: right at IoU 0.5, wrong from 0.75 on.
    assert found["F1 loss"] == (0, True) and accuracy.iou50.f1 == 1
    assert found["small-target AP loss"][0] > 1.5 and not found["small-target AP loss"][1]
    value, passed = found["more centre error at p95"]
    assert value == pytest.approx(0.475) and not passed


def test_accuracy_the_reference_does_not_have_is_no_limit_and_one_the_candidate_lost_is(contract, sample) -> None:
    limits = {"c": LIMITS["boxes"]["int8"]}
    _, _, parity = judged(
        contract, Answering([(*LARGE, 0.8)]), Answering([(*LARGE, 0.8)]), [sample(LARGE)], limits=limits
    )
    assert [check.name for check in parity.checks] == ["not finite", "F1 loss", "more centre error at p95"]
    assert parity.smallest_ap_points is None
    _, _, parity = judged(contract, Answering(BOTH), Answering([]), [sample(SMALL, LARGE)], limits=limits)
    values = {check.name: check.value for check in parity.checks}
    assert values["F1 loss"] == 100 and values["more centre error at p95"] is None and not parity.passed


def test_false_alarms_per_hour_are_counted_on_frames_without_a_target(contract, sample) -> None:
    false: Row = (50, 50, 53, 53, 0.7)
    frames = [[*BOTH, false], [false, (5, 5, 8, 8, 0.6), (20, 5, 23, 8, 0.4)], []]
    samples = [sample(SMALL, LARGE), sample(name="empty"), sample(name="quiet")]
    base, _, parity = judged(contract, Answering(*frames), Answering(*frames), samples)
    assert base.false_boxes_per_100_frames == 100 and parity.false_boxes_per_100_frames == 0
    alarms = base.alarms
    assert (alarms.alarms, alarms.frames, alarms.frame_rate) == (2, 2, 25)
    assert alarms.per_hour == 2 / 2 * 25 * 3600
    # The exact Poisson interval of 2 events.
    assert alarms.interval == pytest.approx((0.24221 / 2 * 90_000, 7.22469 / 2 * 90_000), rel=1e-4)
    base, _, _ = judged(contract, Answering(BOTH), Answering(BOTH), [sample(SMALL, LARGE)])
    assert base.alarms is None


def test_boxes_are_judged_in_frame_pixels(contract, sample) -> None:
    """The frame is squashed to half its size: an edge that moves by 0.25 px there moves by 0.5 px in the frame."""
    frame = sample((20, 20, 28, 28), size=(2 * SIZE, 2 * SIZE))
    base, _, parity = judged(
        contract, Answering([(10, 10, 14, 14, 0.9)]), Answering([(10.25, 10, 14.25, 14, 0.9)]), [frame]
    )
    assert base.iou50.f1 == 1 and base.centre_error_p95 == 0
    assert parity.boxes.max_box == 0.5 and parity.centre_error_p95 == 0.5


def test_values_that_are_not_finite_are_left_out_and_fail_whatever_the_limits(contract, sample) -> None:
    broken: list[Row] = [(*SMALL, np.nan), (30, 30, np.inf, 42, 0.8)]
    _, accuracy, parity = judged(contract, Answering(BOTH), Answering(broken), [sample(SMALL, LARGE)])
    assert parity.boxes.not_finite == 2 and not parity.passed
    assert accuracy.found == 0 and parity.boxes.only_reference == 2
    with pytest.raises(ArtifactError, match="not finite on frame 'a'"):
        compare(Answering(broken), {}, [sample(SMALL)], contract)


def test_without_truth_answers_are_compared_and_metrics_left_out(contract, sample) -> None:
    limits = {"c": LIMITS["boxes"]["int8"]}
    base, accuracy, parity = judged(
        contract, Answering(BOTH), Answering(BOTH), [sample(SMALL, truth=False)], limits=limits
    )
    assert base is None and accuracy is None and parity.f1_points is None and parity.boxes.pairs == 2
    assert [check.name for check in parity.checks] == ["not finite"] and not parity.by_size


def test_outputs_that_do_not_fit_together_are_refused(contract, sample) -> None:
    class Odd(Answering):
        def run(self, feeds, out=None):
            return super().run(feeds) | {"classes": np.zeros((1, 2), np.int64)}

    with pytest.raises(ArtifactError, match="do not fit together"):
        compare(Answering(BOTH), {"odd": Odd(BOTH)}, [sample(SMALL)], contract)
