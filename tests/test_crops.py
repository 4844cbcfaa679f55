"""RoIAlign as matrix products: equal to sampling point by point, to training's form, and to a plain resize."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from irforge.frames.crops import align_matrix, box_averages, crop_boxes
from irforge.train.ops.roi_align import pool_boxes

FRAME = np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8)
BOXES = np.array(
    [[10, 12, 30, 28], [3.3, 7.7, 100.2, 80.6], [0, 0, 120, 90], [50.5, 40, 51.5, 42], [0.2, 60, 7, 90]], np.float32
)


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * plane[top, left] + across * plane[top, right]
    lower = (1 - across) * plane[bottom, left] + across * plane[bottom, right]
    return (1 - down) * upper + down * lower


def roi_align_point_by_point(plane: np.ndarray, box: np.ndarray, bins: int) -> np.ndarray:
    x0, y0, x1, y1 = (float(edge) - 0.5 for edge in box)
    tall, wide = (y1 - y0) / bins, (x1 - x0) / bins
    rows, columns = math.ceil(tall), math.ceil(wide)
    result = np.zeros((bins, bins))
    for i in range(bins):
        for j in range(bins):
            samples = [
                bilinear(plane, y0 + (i + (k + 0.5) / rows) * tall, x0 + (j + (m + 0.5) / columns) * wide)
                for k in range(rows)
                for m in range(columns)
            ]
            result[i, j] = np.mean(samples)
    return result


@pytest.mark.parametrize("box", BOXES)
def test_a_crop_is_roi_align_of_the_whole_frame(box: np.ndarray) -> None:
    found = crop_boxes(FRAME, box[None], 8)[0, 0]
    expected = roi_align_point_by_point(FRAME.astype(np.float64), box, 8) / 255
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_crops_equal_those_that_torch_cuts() -> None:
    expected = pool_boxes(torch.from_numpy(FRAME).float()[None], torch.from_numpy(BOXES), 32, 1.0)
    np.testing.assert_allclose(crop_boxes(FRAME, BOXES, 32)[:, 0], expected[:, 0].numpy() / 255, atol=1e-5)


def test_a_box_smaller_than_the_crop_is_a_grid_sample() -> None:
    x0, y0, x1, y1 = BOXES[0].tolist()
    steps = (torch.arange(48) + 0.5) / 48
    # Normalised so that -1 and 1 are the frame's edges.
    across, down = (x0 + steps * (x1 - x0)) / 120 * 2 - 1, (y0 + steps * (y1 - y0)) / 90 * 2 - 1
    grid = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1)[None]
    image = torch.from_numpy(FRAME).float()[None, None]
    expected = F.grid_sample(image, grid, padding_mode="border", align_corners=False)[0, 0].numpy() / 255
    np.testing.assert_allclose(crop_boxes(FRAME, BOXES[:1], 48)[0, 0], expected, atol=1e-5)


def test_the_whole_frame_as_a_crop_is_a_bilinear_resize() -> None:
    found = crop_boxes(FRAME, np.array([[0, 0, 120, 90]], np.float32), 160)[0, 0]
    expected = F.interpolate(torch.from_numpy(FRAME).float()[None, None], (160, 160), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(found, expected / 255, atol=2e-5)


def test_the_aspect_ratio_is_warped() -> None:
    ramp = np.tile(np.arange(120, dtype=np.uint8), (90, 1))
    crop = crop_boxes(ramp, np.array([[20, 30, 100, 40]], np.float32), 40)[0, 0] * 255
    # Each column stands for two pixels: their mean is the ramp at its centre, a half before the edge coordinate.
    np.testing.assert_allclose(crop, np.tile(20 + 2 * np.arange(40) + 0.5, (40, 1)), atol=1e-4)


def test_gray_fills_three_channels_and_colours_keep_their_order() -> None:
    gray = crop_boxes(FRAME, BOXES, 16)
    colour = np.stack([FRAME, 255 - FRAME, np.zeros_like(FRAME)], axis=2)
    crops = crop_boxes(colour, BOXES, 16)
    assert crops.shape == gray.shape == (5, 3, 16, 16) and crops.dtype == np.float32
    assert (gray == gray[:, :1]).all()
    np.testing.assert_allclose(crops[:, 0], gray[:, 0], atol=1e-6)
    np.testing.assert_allclose(crops[:, 1], 1 - gray[:, 0], atol=1e-6)
    assert not crops[:, 2].any()


def test_no_boxes_and_boxes_beside_the_frame_are_no_fault() -> None:
    assert crop_boxes(FRAME, np.zeros((0, 4), np.float32), 16).shape == (0, 3, 16, 16)
    assert not crop_boxes(FRAME, np.array([[300, 300, 320, 320]], np.float32), 4).any()
    rows, columns = box_averages(np.zeros((0, 4), np.float32), 3, 4, 32)
    assert rows.shape == (0, 3) and columns.shape == (0, 4)


def test_inside_the_frame_an_axis_takes_shares_that_sum_to_one() -> None:
    for low, high in ((0, 90), (3.25, 4), (10, 77.7)):
        np.testing.assert_allclose(align_matrix(low, high, 7, 90).sum(axis=1), 1, atol=1e-6)


def test_a_boxs_average_is_roi_align_with_one_bin() -> None:
    features = torch.randn(6, 9, 12, generator=torch.Generator().manual_seed(0))
    boxes = BOXES * 3.2
    rows, columns = box_averages(boxes, 9, 12, 32)
    found = np.einsum("nh,chw,nw->nc", rows, features.numpy(), columns)
    expected = pool_boxes(features, torch.from_numpy(boxes), 1, 1 / 32)[:, :, 0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_crop_costs_what_its_box_covers() -> None:
    large = np.zeros((2000, 2000), np.uint8)
    large[:90, :120] = FRAME
    inner = BOXES[:1]
    np.testing.assert_array_equal(crop_boxes(large, inner, 24), crop_boxes(FRAME, inner, 24))


def test_opencv_agrees_but_for_its_fixed_point() -> None:
    x0, y0, x1, y1 = BOXES[0]
    size = 40
    matrix = np.array(
        [[(x1 - x0) / size, 0, x0 - 0.5 + (x1 - x0) / size / 2], [0, (y1 - y0) / size, y0 - 0.5 + (y1 - y0) / size / 2]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(
        FRAME.astype(np.float32), matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(crop_boxes(FRAME, BOXES[:1], size)[0, 0] - warped / 255).max() < 0.03
