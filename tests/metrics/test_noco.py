"""The NoCo map: golden values, what lies at the border, and where a target's peak is."""

from __future__ import annotations

import numpy as np
import pytest

from irforge.noco import noco_map, noco_patch, noco_peak


def image_a() -> np.ndarray:
    image = np.full((20, 20), 10, np.uint8)
    image[8:11, 6:9] = [[50, 60, 50], [60, 100, 60], [50, 60, 50]]
    return image


def test_golden_patch() -> None:
    noco = noco_map(image_a(), np.array([[6, 8, 9, 11]]))
    edge, corner = 0.5173, 0.3858
    expected = [[corner, edge, corner], [edge, 0.9990, edge], [corner, edge, corner]]
    assert noco[8:11, 6:9] == pytest.approx(np.array(expected), abs=5e-5)
    assert noco.max() == pytest.approx(0.9990009, abs=5e-8)
    noco[8:11, 6:9] = 0
    assert not noco.any()


def test_a_context_is_clipped_at_the_border_and_an_even_box_has_two_peaks() -> None:
    image = np.full((12, 12), 20, np.uint8)
    image[:2, :4] = 80
    noco = noco_map(image, np.array([[0, 0, 4, 2]]))
    assert noco[:2, :4] == pytest.approx(np.array([[0.9273, 0.9989, 0.9989, 0.9273]] * 2), abs=5e-5)
    noco[:2, :4] = 0
    assert not noco.any()


def test_a_later_box_overwrites_the_context_of_an_earlier_one() -> None:
    image = np.full((20, 24), 10, np.uint8)
    image[8:11, 4:7] = image[8:11, 9:12] = 100
    noco = noco_map(image, np.array([[4, 8, 7, 11], [9, 8, 12, 11]]))
    assert noco[9, 4:7] == pytest.approx([0.9312, 0.9990, 0.3243], abs=5e-5)
    assert noco[9, 9:12] == pytest.approx([0.9312, 0.9990, 0.9312], abs=5e-5)


def test_coordinates_are_truncated_and_a_box_keeps_a_pixel() -> None:
    image = image_a()
    whole = noco_map(image, np.array([[6, 8, 9, 11]]))
    assert np.array_equal(noco_map(image, np.array([[6.9, 8.2, 9.7, 11.9]])), whole)
    thin = noco_patch(image, np.array([7.2, 9.1, 7.9, 9.8]))
    assert thin is not None and thin.values.shape == (3, 3) and (thin.top, thin.left) == (8, 6)
    assert thin.values.argmax() == 4


def test_what_lies_outside_the_frame_counts_for_nothing() -> None:
    image = image_a()
    for box in ([20, 3, 24, 6], [3, -9, 6, -4], [-5, -5, -1, -1]):
        assert noco_patch(image, np.array(box)) is None and noco_peak(image, np.array(box)) is None
        assert not noco_map(image, np.array([box])).any()
    image[0, 0] = 90
    assert noco_peak(image, np.array([-2, -3, 2, 2])) == (0.5, 0.5)
    assert noco_map(image, np.empty((0, 4))).shape == image.shape


def test_the_peak_does_not_follow_errors_of_the_box() -> None:
    for box in ([6, 8, 9, 11], [5, 8, 9, 11], [6, 7, 9, 12], [7, 9, 10, 12]):
        assert noco_peak(image_a(), np.array(box)) == (7.5, 9.5)


def test_a_brighter_neighbour_outside_the_box_is_no_peak() -> None:
    image = image_a()
    image[9, 10] = 255
    assert noco_peak(image, np.array([6, 8, 9, 11])) == (7.5, 9.5)
    noco = noco_map(image, np.array([[6, 8, 9, 11]]))
    assert noco[9, 7] < noco[9, 10] == noco.max()


def test_an_image_of_three_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="H x W"):
        noco_patch(np.zeros((20, 20, 3)), np.array([6, 8, 9, 11]))
