"""Promises of a comparison: one truth, one set of rules, figures that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.bench import bench_models
from irforge.contract import DataNote, PadToMultiple
from irforge.errors import InputError, UsageError
from irforge.runtime.benchmark import Schedule
from irforge.runtime.comparison import measure
from irforge.runtime.comparison.entry import Entry, class_notes, class_numbers
from irforge.runtime.measure import Plan
from tests.box_model import box_contract, box_frame
from tests.runtime.comparison.conftest import write_set


def test_figures_are_those_counted_by_hand(bright, boxes: Path, three: Path, compared) -> None:
    found = compared([bright(128), bright(95), bright(250), boxes], three)
    middle, whole, blind, box = found.contestants
    assert (found.data.frames, found.data.targets) == (3, 3)
    # Nine pixels a target, of which one is marked; one pixel of clutter among 3 x 64 x 64.
    assert middle.mask.iou == pytest.approx(3 / (27 + 1)) and middle.mask.niou == pytest.approx((1 / 9 + 1 / 9 + 0) / 3)
    assert middle.mask.pd == 1 and middle.mask.fa == pytest.approx(1 / (3 * 64 * 64))
    assert whole.mask.iou == pytest.approx(27 / 28) and whole.mask.found == 3
    # The middle lies where the true centre does, but a box of 1 x 1 is no box of 3 x 3.
    rates = middle.objects.centre
    assert (rates.right, rates.wrong, rates.missed) == (3, 1, 0) and rates.f1 == pytest.approx(6 / 7)
    assert middle.objects.iou50.right == 0 and middle.objects.ap50 == 0
    assert whole.objects.iou50.right == 3 and whole.objects.iou50.wrong == 1
    # One alarm on the one frame without a target, at 25 frames a second; a third of an alarm a frame over all.
    assert middle.objects.alarms.per_hour == 25 * 3600 and middle.objects.false_per_frame == pytest.approx(1 / 3)
    assert middle.objects.false_per_hour == pytest.approx(25 * 3600 / 3)
    assert blind.objects.pd == 0 and blind.objects.centre.precision is None and blind.curve == []
    assert box.mask is None and box.missing["mask"] == "it gives boxes"
    assert box.objects.iou50.right == 3 and box.objects.found == 3


def test_a_figure_that_bench_measures_too_is_the_same(bright, boxes: Path, three: Path, compared) -> None:
    mask = bright(128)
    one, other = compared([mask, boxes], three).contestants
    plan = Plan(Schedule(rounds=1, frames_per_round=1, warm_up=0))
    reports = [bench_models([path], plan=lambda size: plan, data=str(three), command="") for path in (mask, boxes)]
    assert one.mask == reports[0].models[0].accuracy and one.mask_at_model is None
    theirs, ours = reports[1].models[0].accuracy, other.objects
    assert (ours.pd, ours.ap50, ours.centre, ours.iou50) == (theirs.pd, theirs.ap50, theirs.centre, theirs.iou50)
    assert ours.alarms == theirs.alarms


def test_points_of_a_mask_are_its_brightest_pixels(bright, three: Path, compared) -> None:
    whole, middle = (one.objects for one in compared([bright(95), bright(128)], three).contestants)
    # The brightest pixel of a target is where its contrast peaks, and clutter scores less than any target. To the
    # published code a mask's point is a pixel, not a place between two.
    assert whole.nocoap == middle.nocoap == 1
    assert whole.nocoap_legacy == middle.nocoap_legacy == 1


def test_a_mask_of_another_size_is_scored_in_frame_pixels_and_at_its_own(bright, three: Path, compared) -> None:
    half, full = compared([bright(95, "half.onnx", size=(32, 32)), bright(95)], three).contestants
    assert half.fit == "squashed to 32 × 32" and full.mask_at_model is None
    assert half.mask.targets == full.mask.targets == 3
    # A model's pixel covers four of the frame's: what it marks outside targets of an odd side counts here.
    assert half.mask.iou < full.mask.iou and half.mask_at_model.iou != half.mask.iou


def test_curves_fall_with_the_threshold(bright, three: Path, compared) -> None:
    (found,) = compared([bright(128)], three).contestants
    # Targets shine at 220, clutter at 140: three right ones first, then the false one.
    first, last = found.curve
    assert (first.precision, first.recall, first.false_per_frame) == (1, 1, 0)
    assert (last.precision, last.recall) == (3 / 4, 1) and last.false_per_frame == pytest.approx(1 / 3)
    assert first.score > last.score
    # sigmoid((140 - 128) / 8) = 0.82: clutter is false up to there, and no longer at 0.9.
    assert [point.fa > 0 for point in found.mask_curve] == [True] * 8 + [False]
    assert all(point.pd == 1 for point in found.mask_curve)


def test_every_frame_is_run_once_and_slow_models_take_no_turns(
    bright, three: Path, compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = compared([bright(128), bright(200)], three, schedule=(2, 3, 0))
    assert all(one.timing.interleaved and one.timing.frame.n == 6 for one in quick.contestants)
    monkeypatch.setattr(measure, "SLOW", 0.0)
    slow = compared([bright(128), bright(200)], three)
    assert all(not one.timing.interleaved and one.timing.frame.n == 3 for one in slow.contestants)
    assert any(f.text.endswith("the frames of the accuracy: bright128.onnx, bright200.onnx.") for f in slow.findings)
    # Frames that one thread answered stay those of one thread.
    kept = compared([bright(128), bright(200)], three, threads=2)
    assert [one.timing.threads for one in kept.contestants] == [1, 1]
    assert any(f.text.endswith("bright128.onnx (1 thread), bright200.onnx (1 thread).") for f in kept.findings)
    off = compared([bright(128)], three, schedule=(0, 1, 0))
    assert off.contestants[0].timing is None and off.contestants[0].missing["timing"] == "not asked for"


def test_what_is_counted_of_a_graph_is_there_and_the_rest_says_why(bright, boxes: Path, three: Path, compared) -> None:
    mask, box = compared([bright(128), boxes], three).contestants
    assert box.parameters > 1000 and box.macs == 64 * 64 * (9 * 8 + 2 * 9 * 64 + 16) and box.macs_size == (64, 64)
    assert mask.macs == 0 and mask.engine is None
    assert mask.missing == {"engine": "no engine built from this file lies beside it"}


def test_frames_of_many_bits_have_no_contrast_map(bright, tmp_path: Path, compared) -> None:
    for part in ("images", "masks"):
        (tmp_path / "deep" / part).mkdir(parents=True)
    frame = box_frame((10, 10))
    cv2.imwrite(str(tmp_path / "deep/images/a.png"), frame.astype(np.uint16))
    cv2.imwrite(str(tmp_path / "deep/masks/a.png"), np.where(frame > 90, 255, 0).astype(np.uint8))
    model = bright(95, door="float32", bit_depth=14)
    (found,) = compared([model], tmp_path / "deep").contestants
    assert found.objects.nocoap is None and found.missing["nocoap"] == "frames have more than 8 bits"
    assert found.missing["alarms"] == "no frame is free of targets" and found.objects.pd == 1


def test_what_does_not_fit_is_refused_before_anything_runs(bright, three: Path, compared, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"two of the models are called 'bright128\.onnx'"):
        compared([bright(128), bright(128)], three)
    with pytest.raises(UsageError, match="has no truth"):
        compared([bright(128)], three / "images")
    small = bright(128, "small.onnx", size=(48, 48), fit=PadToMultiple(multiple=16))
    with pytest.raises(InputError, match=r"'small\.onnx' cannot take the frames of 'three': .* is 64 pixels high"):
        compared([bright(95), small], three)
    assert not (tmp_path / "answers").exists()


def test_frames_that_a_model_saw_are_left_out_for_all(bright, tmp_path: Path, compared) -> None:
    frames = {name: ([(10, 10 * i + 5)], []) for i, name in enumerate("abcd")}
    write_set(tmp_path / "set", frames, {"test": "abc", "train": "cd"})
    note = DataNote(name="set", split="train-train", frames=2, licence="")
    models = [bright(128), bright(95, provenance={"trained_on": [note]})]
    found = compared(models, "set:test", data_root=tmp_path, unseen=True)
    assert (found.data.frames, found.data.frames_in_split) == (2, 3)
    assert all(one.objects.targets == 2 for one in found.contestants)
    assert found.contestants[1].trained_on == ["set:train-train, 2"]
    assert [f.text for f in found.findings if "left out" in f.text] == [
        "bright95.onnx saw 1 of 3 frames in training, in set:train: they are left out for all."
    ]
    with pytest.raises(UsageError, match="each frame of 'set' was seen in training"):
        compared(models, "set:train", data_root=tmp_path, unseen=True)


def test_classes_meet_by_name() -> None:
    def entry(*classes: str) -> Entry:
        contract = box_contract()
        output = contract.output.model_copy(update={"classes": list(classes)})
        contract = contract.model_copy(update={"output": output})
        return Entry("m.onnx", Path("m.onnx"), contract, lambda: None, 0, None)

    assert class_numbers(entry("drone"), ["target"], False) == [0]
    assert class_numbers(entry("car", "bird", "drone"), ["drone", "bird"], False) == [-1, 1, 0]
    assert class_numbers(entry("car", "bird"), ["target"], True) == [0, 0]
    with pytest.raises(UsageError, match=r"'m\.onnx' knows car, bird, the data holds target"):
        class_numbers(entry("car", "bird"), ["target"], False)
    assert class_notes(entry("car", "bird"), ["bird", "drone"], False) == [
        "m.onnx does not know drone: these targets count as missed.",
        "What m.onnx finds of car is not counted.",
    ]
