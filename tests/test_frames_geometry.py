"""Promises of irforge.frames: where a frame lies in the tensor, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irforge.contract import Letterbox, PadToMultiple, Range, Squash
from irforge.frames import fit_geometry, prepare
from tests.frame_samples import geometries, noise, spec


@pytest.mark.parametrize("seed", range(10))
def test_boxes_and_points_come_back_from_the_model_where_they_were(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for geometry in geometries(seed):
        x = np.sort(rng.uniform(0, geometry.frame_width, (20, 2)), axis=1)
        y = np.sort(rng.uniform(0, geometry.frame_height, (20, 2)), axis=1)
        boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)
        inside = geometry.to_model_boxes(boxes)
        assert (inside[:, :2] >= (geometry.left, geometry.top)).all()
        assert np.abs(geometry.to_frame_boxes(inside) - boxes).max() < 1e-3
        points = boxes[:, :2]
        assert np.abs(geometry.to_frame_points(geometry.to_model_points(points)) - points).max() < 1e-3


def test_whole_frame_fills_its_window_exactly() -> None:
    for geometry in geometries(3):
        whole = geometry.to_model_boxes([[0, 0, geometry.frame_width, geometry.frame_height]])[0]
        left, top = geometry.left, geometry.top
        assert whole.tolist() == [left, top, left + geometry.content_width, top + geometry.content_height]


def test_boxes_are_clipped_to_the_frame() -> None:
    geometry = fit_geometry(50, 100, spec(fit=Letterbox()))
    assert geometry.to_frame_boxes([[-9, -9, 99, 99]]).tolist() == [[0, 0, 100, 50]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "fit", [Squash(), Letterbox(), PadToMultiple(multiple=32)], ids=["squash", "letterbox", "pad-to-multiple"]
)
def test_a_bright_spot_is_found_where_it_was(fit: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(40, 200, 2))
    row, column = int(rng.integers(2, height - 5)), int(rng.integers(2, width - 5))
    frame = np.zeros((height, width), np.uint8)
    frame[row : row + 3, column : column + 3] = 255
    tensor, geometry = prepare(frame, spec(height=224, width=224, fit=fit))
    assert tensor.shape == (1, 1, 224, 224)
    weights = tensor[0, 0].astype(float)
    rows, columns = np.mgrid[0:224, 0:224] + 0.5
    centre = [(columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()]
    found = geometry.to_frame_points([centre])[0]
    assert np.abs(found - (column + 1.5, row + 1.5)).max() < 0.25


def test_model_masks_come_back_at_frame_size() -> None:
    geometry = fit_geometry(100, 200, spec(fit=Letterbox()))
    mask = np.zeros((64, 64), bool)
    mask[geometry.top + 8, 10] = True
    mask[0, 0] = True  # in the padding
    back = geometry.to_frame_mask(mask)
    assert back.shape == (100, 200)
    rows, columns = np.nonzero(back)
    box = geometry.to_frame_boxes([[10, geometry.top + 8, 11, geometry.top + 9]])[0]
    assert abs(columns.min() - box[0]) <= 0.5 and abs(columns.max() + 1 - box[2]) <= 0.5
    assert abs(rows.min() - box[1]) <= 0.5 and abs(rows.max() + 1 - box[3]) <= 0.5


def test_letterbox_keeps_the_aspect_and_centres() -> None:
    geometry = fit_geometry(512, 640, spec(height=256, width=256, fit=Letterbox()))
    assert (geometry.content_height, geometry.content_width, geometry.top, geometry.left) == (205, 256, 25, 0)


def test_pad_to_multiple_keeps_native_pixels() -> None:
    frame = noise(50, 70)
    wide = Range(min=32, opt=64, max=640, multiple=32)
    tensor, geometry = prepare(frame, spec(height=wide, width=wide, fit=PadToMultiple(multiple=16), pad_level=99.5))
    assert tensor.shape == (1, 1, 64, 96)
    assert np.array_equal(geometry.crop(tensor)[0, 0], frame)
    assert (tensor[0, 0, 50:] == 100).all() and (tensor[0, 0, :, 70:] == 100).all()
