"""Crops of box data: boxes follow every change of the frame, and an interrupted run sees the same samples again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from irforge.contract import InputSpec, Normalization, PadToMultiple
from irforge.datasets import BoxTruth, Dataset, Sample, open_dataset
from irforge.errors import InputError
from irforge.frames import Geometry
from irforge.train.data.augment import Window, random_turn, random_window
from irforge.train.data.boxes import BoxCrops, WholeBoxFrames, collate
from irforge.train.data.frames import BoxFrame, BoxFrames, load_box_frames
from irforge.train.recipe import Augment

PLAIN = Augment(scale_share=0, contrast_share=0, noise_share=0)
BRIGHT = 200


class Paint:
    """A criterion that only hands back what it was given, as maps."""

    def encode(self, levels: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
        painted = np.zeros((1, *levels.shape), np.float32)
        for x1, y1, x2, y2 in np.round(boxes).astype(int):
            painted[0, y1:y2, x1:x2] = 1
        return {"painted": painted}

    def __call__(self, *args: object) -> dict[str, torch.Tensor]:
        raise AssertionError("nothing is trained here")


def frame(boxes: list[list[int]], size: tuple[int, int] = (60, 80)) -> BoxFrame:
    levels = np.full(size, 40, np.uint8)
    for x1, y1, x2, y2 in boxes:
        levels[y1:y2, x1:x2] = BRIGHT
    truth = BoxTruth(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64))
    return BoxFrame(levels, truth.boxes, truth.classes, Geometry(*size, *size, *size), truth)


def frames(count: int = 6) -> BoxFrames:
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        x, y = int(rng.integers(2, 70)), int(rng.integers(2, 50))
        made.append(frame([[x, y, x + 6, y + 4]]))
    return BoxFrames("a", tuple(made), ("target",))


def crops(augment: Augment = PLAIN, samples: int = 40, epoch: int = 0, crop: int = 32) -> BoxCrops:
    return BoxCrops([frames()], [1.0], samples, crop, augment, 1, epoch, Paint())


def test_boxes_lie_on_their_targets_after_cut_flip_and_transposition() -> None:
    seen = 0
    for sample in (crops()[i] for i in range(40)):
        bright = sample.levels[0].numpy() == BRIGHT
        painted = sample.maps["painted"][0].numpy() > 0
        for x1, y1, x2, y2 in sample.boxes.numpy():
            cut_off = x1 == 0 or y1 == 0 or x2 == 32 or y2 == 32
            assert cut_off or {x2 - x1, y2 - y1} == {6, 4}
            seen += 1
        assert not (painted & ~bright).any()
        # Only a target whose centre lies outside may be bright without a box.
        inner = (bright & ~painted)[4:-4, 4:-4]
        assert not inner.any()
    assert seen > 20


def test_boxes_follow_zoom_within_a_fraction_of_a_pixel() -> None:
    zoomed = Augment(scale=(2.0, 2.0), scale_share=1, contrast_share=0, noise_share=0, target_share=1)
    sizes = []
    for i in range(20):
        sample = crops(zoomed)[i]
        for x1, y1, x2, y2 in sample.boxes.numpy():
            if x1 > 0 and y1 > 0 and x2 < 32 and y2 < 32:
                sizes.append(sorted((x2 - x1, y2 - y1)))
    assert sizes
    np.testing.assert_allclose(sizes, np.tile([8, 12], (len(sizes), 1)), atol=1e-4)


def test_a_box_belongs_to_a_crop_if_its_centre_does_and_is_cut_at_the_edge() -> None:
    window = Window(top=10, left=20, side=30, height=30, width=30, zoom=1.0)
    boxes = np.array([[18, 12, 28, 16], [10, 12, 24, 16], [44, 20, 60, 24], [25, 35, 27, 44]], np.float32)
    kept, rows = window.cut_boxes(boxes, (60, 80))
    assert rows.tolist() == [0, 3]
    np.testing.assert_allclose(kept, [[0, 2, 8, 6], [5, 25, 7, 30]])


def test_a_crop_larger_than_the_frame_keeps_the_boxes_and_fills_the_rest() -> None:
    rng = np.random.default_rng(0)
    window = random_window((60, 80), 128, np.zeros((0, 2), np.float32), PLAIN, rng)
    one = frame([[30, 20, 36, 24]])
    levels = window.cut(one.levels, 128)
    kept, _ = window.cut_boxes(one.boxes, (60, 80))
    assert levels.shape == (128, 128)
    np.testing.assert_allclose(kept, one.boxes)
    assert levels[100, 100] == pytest.approx(one.levels.mean(), abs=1e-3)


def test_a_turn_and_its_boxes_agree_for_all_eight_orientations() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(100):
        turn = random_turn(PLAIN, rng)
        seen.add((turn.across, turn.down, turn.transpose))
        plane = np.zeros((16, 16), np.float32)
        plane[2:5, 7:13] = 1
        x1, y1, x2, y2 = turn.boxes(np.array([[7, 2, 13, 5]], np.float32), 16)[0].astype(int)
        turned = turn.plane(plane)
        assert turned[y1:y2, x1:x2].all() and turned.sum() == 18
    assert len(seen) == 8


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    wild = Augment()
    one, again, other = crops(wild)[5], crops(wild)[5], crops(wild, epoch=1)[5]
    assert torch.equal(one.levels, again.levels) and torch.equal(one.boxes, again.boxes)
    assert not torch.equal(one.levels, other.levels)


def test_a_batch_keeps_samples_with_and_without_boxes_apart() -> None:
    empty = BoxFrames("b", (frame([]),), ("target",))
    data = BoxCrops([frames(), empty], [0.5, 0.5], 8, 32, PLAIN, 1, 0, Paint())
    levels, truth = collate([data[i] for i in range(8)])
    assert levels.shape == (8, 1, 32, 32) and levels.dtype == torch.float32
    assert truth.maps["painted"].shape == (8, 1, 32, 32)
    assert all(boxes.shape == (len(classes), 4) for boxes, classes in zip(truth.boxes, truth.classes, strict=True))
    assert min(map(len, truth.boxes)) == 0 and max(map(len, truth.boxes)) == 1


def spec() -> InputSpec:
    return InputSpec(height=64, width=96, fit=PadToMultiple(multiple=32), normalization=Normalization(mean=100, std=30))


def test_loaded_frames_have_boxes_in_network_pixels_and_truth_in_frame_pixels(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((50, 70), np.uint8)
    mask[10:14, 20:26] = 255
    cv2.imwrite(str(tmp_path / "images" / "x.png"), np.full((50, 70), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "x.png"), mask)
    loaded = load_box_frames(open_dataset(tmp_path), spec())
    (only,) = loaded.frames
    assert only.levels.shape == (64, 96)
    np.testing.assert_allclose(only.boxes, [[20, 10, 26, 14]])
    np.testing.assert_allclose(only.truth.boxes, [[20, 10, 26, 14]])
    levels, source, number = WholeBoxFrames([loaded])[0]
    assert levels.shape == (1, 1, 64, 96) and (source, number) == (0, 0)


def test_frames_without_boxes_cannot_train_a_box_detector(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.full((50, 70), 90, np.uint8))
    plain = Dataset("plain", "all", tmp_path, "", (Sample("x", tmp_path / "x.png"),))
    with pytest.raises(InputError, match="no boxes for 'x'"):
        load_box_frames(plain, spec())
