"""What the studies of tracks, tiles and camera faults count, on cases that can be counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import robustness, tiling, tracking
from benchmarks.backgrounds import paste
from irforge.datasets import open_dataset
from irforge.detections import Detections, mask_targets
from irforge.runtime.tracking.tracked import Tracked
from tests.box_model import box_frame


def at(*centres: tuple[float, float]) -> Detections:
    points = np.array(centres, np.float32).reshape(-1, 2)
    return Detections(
        np.concatenate([points - 1, points + 1], axis=1), np.linspace(0.9, 0.8, len(points)), np.zeros(len(points))
    )


def tracked(*rows: tuple[float, float, int]) -> Tracked:
    return Tracked.of(at(*((x, y) for x, y, _ in rows)), np.array([track for *_, track in rows], np.int64), {})


def test_a_score_of_tracks_counts_waits_breaks_and_false_tracks() -> None:
    truths = [([0, 1], np.array([(10.0, 10.0), (50.0, 50.0)]))] * 10
    frames = [tracked((10, 10, -1))] * 2
    frames += [tracked((11, 10, 1), (90, 90, 7))] * 3 + [tracked((10, 10, 2))] * 5
    score = tracking.Score()
    score.add(truths, frames)
    found = score.result()
    # Target 0 waits for the third frame and is followed in 8 of 20 frames of a target, by 1 and then by 2.
    assert found["first_track_frames"] == {"p50": 3, "p90": 3}
    assert (found["targets"], found["never_tracked"]) == (2, 1)
    assert found["track_pd"] == pytest.approx(8 / 20)
    assert found["breaks_a_minute"] == pytest.approx(1 / (20 / 25 / 60))
    assert found["false_tracks"]["per_hour"] == pytest.approx(1 / (10 / 25 / 3600))


def test_false_tracks_are_counted_in_nothing_but_alarms() -> None:
    pytest.importorskip("trackers")
    few, many = (tracking.from_noise(0.005, rate) for rate in (0.1, 60.0))
    assert few["frames"] == 450 and few["alarms"] == 0 < many["alarms"]
    assert many["interval"][0] < many["per_hour"] < many["interval"][1]


def test_a_scene_is_its_seed_and_its_truth_is_where_its_targets_shine() -> None:
    background = np.full((400, 500), 90, np.uint8)
    clip, again = list(tracking.scene(background, 4, seed=5)), list(tracking.scene(background, 4, seed=5))
    for (record, (names, places)), (other, _) in zip(clip, again, strict=True):
        assert np.array_equal(record.frame, other.frame) and len(names) == len(places)
        for x, y in places:
            around = record.frame[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
            assert around.max() > 90 + 12
    assert sum(len(names) for _, (names, _) in clip) >= 4


def test_simulated_detections_are_near_targets_or_alarms() -> None:
    truth = ([0], np.array([(100.0, 120.0)]))
    random = np.random.default_rng(0)
    near = alarms = 0
    for _ in range(400):
        centres = tracking.simulated(truth, random).centres
        close = np.hypot(*(centres - truth[1]).T) < 3
        near, alarms = near + bool(close.any()), alarms + int((~close).sum())
    assert near / 400 == pytest.approx(tracking.PD, abs=0.06) and alarms / 400 == pytest.approx(
        tracking.ALARMS, abs=0.12
    )


def test_true_boxes_without_identities_are_linked() -> None:
    moving = [np.array([(10.0 + k, 10, 20 + k, 20), (100, 100, 110, 110)]) for k in range(5)]
    moving[2] = moving[2][::-1]
    jumped = np.array([(200.0, 200, 210, 210)])
    assert tracking.linked([*moving, np.empty((0, 4)), jumped]) == [[1, 2], [1, 2], [2, 1], [1, 2], [1, 2], [], [3]]


def test_hota_and_idf1_of_perfect_tracks_are_one() -> None:
    pytest.importorskip("trackers")
    boxes = [np.array([(10.0 + k, 10, 20 + k, 20)]) for k in range(6)]
    ones, apart = [np.eye(1)] * 6, [np.zeros((1, 1))] * 6
    ids, right = tracking.linked(boxes), [np.array([4])] * 6
    found = tracking._figures(ids, right, ones, ones)
    assert {key: value[tracking._WORDS[key]] for key, value in found.items()} == {"hota": 1, "idf1": 1, "near": 1}
    assert tracking._together({key: [value] for key, value in found.items()}) == {"hota": 1, "idf1": 1, "near": 1}
    assert tracking._figures(ids, right, apart, ones)["idf1"]["IDF1"] == 0


def test_hits_tell_found_doubled_and_false_apart() -> None:
    truth = np.array([(10.0, 10.0), (40.0, 40.0), (80.0, 80.0)])
    found = at((10, 10), (11, 10), (41, 40), (60, 60))
    assert tiling.hits(found, truth) == ([True, True, False], 1, 1)
    assert tiling.hits(at(), truth) == ([False] * 3, 0, 0)


def test_pasted_targets_stand_out_where_the_truth_says() -> None:
    frame = np.full((60, 60), 90, np.float32)
    share = np.zeros((9, 9), np.float32)
    share[3:6, 3:6] = 1
    assert paste(frame, (share * 80, share), (20, 30)) == (20.5, 30.5)
    assert frame[30, 20] == 170 and frame[33, 20] == 90 and (frame > 90).sum() == 9


def test_composed_frames_hold_every_target_apart_and_half_on_seams() -> None:
    share = np.pad(np.ones((3, 3), np.float32), 3)
    seams = [500], [700, 1200]
    frame, truth = tiling.composed(
        np.full((512, 640), 90, np.uint8), [(share * 60, share)], seams, 10, np.random.default_rng(0)
    )
    assert frame.shape == tiling.SIZE and truth.shape == (10, 2)
    assert all(frame[int(y), int(x)] == 150 for x, y in truth)
    on_seam = [abs(y - 500) <= 7 or min(abs(x - 700), abs(x - 1200)) <= 7 for x, y in truth[1::2]]
    assert all(on_seam)


class Bright:
    """A detector of what is 200 levels or more."""

    def __call__(self, frame: np.ndarray) -> Detections:
        return mask_targets((frame >= 200).astype(np.float32), 0.5)


def test_robustness_tells_off_from_on(tmp_path: Path) -> None:
    slope = np.linspace(30, 150, 64)[:, None] * np.ones(64)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, places in (("a", [(10, 20), (40, 30)]), ("b", [(25, 45)])):
        frame, mask = slope.astype(np.uint8), np.zeros((64, 64), np.uint8)
        for x, y in places:
            frame[y : y + 3, x : x + 3], mask[y : y + 3, x : x + 3] = 250, 255
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), frame)
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), mask)
    rows = robustness.measure(Bright(), open_dataset(tmp_path))  # type: ignore[arg-type]
    base = rows["as it is"]["off"]
    assert (base["pd"], base["targets"], base["alarms_a_frame"]) == (1, 3, 0)
    inverted = rows["inverted polarity"]
    assert inverted["off"]["pd"] == 0 and inverted["on"]["pd"] == 1
    dead = rows["0.1 % dead pixels"]
    assert dead["off"]["alarms_a_frame"] > dead["on"]["alarms_a_frame"] == 0
    # Three of six frames are closed; flagged, they neither count nor alarm.
    shutter = rows["one shutter event"]
    assert shutter["off"]["pd"] == pytest.approx(0.5) and shutter["on"]["pd"] == 1
    assert (shutter["off"]["frames"], shutter["on"]["frames"]) == (12, 6)
    assert set(rows["gain +30 %"]) == {"off"} and rows["gain -30 %"]["off"]["pd"] == 0
    lines = robustness.table({"bright": rows})
    assert len(lines) == 2 + len(rows) and "none offered" in lines[3]


def test_dead_pixels_are_the_same_in_every_frame() -> None:
    fault = next(fault for fault in robustness.faults() if "dead" in fault.name)
    frame = box_frame((30, 30))
    first, second = fault.harm(frame), fault.harm(frame + 1)
    assert np.array_equal(first != frame, second != frame + 1)
    assert 1 <= (first != frame).sum() <= 5
