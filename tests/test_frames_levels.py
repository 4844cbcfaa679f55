"""Promises of irforge.frames: levels, colours and gain control."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from irforge.contract import ClaheGain, MinMaxGain, PercentileGain
from irforge.errors import InputError
from irforge.frames import apply_gain, prepare, to_gray
from tests.frame_samples import noise, spec


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", ["mean", "luma", "strict"])
def test_equal_channels_collapse_exactly(colour: Any, bits: int) -> None:
    gray = noise(40, 50, bits)
    assert np.array_equal(to_gray(np.repeat(gray[:, :, None], 3, axis=2), colour), gray)
    assert to_gray(gray, colour) is gray


def test_colour_rules_are_mean_and_pillows_luma() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (60, 70, 3)).astype(np.uint8)
    assert np.array_equal(to_gray(colours, "mean"), np.round(colours.mean(axis=2)))
    assert np.array_equal(to_gray(colours, "luma"), np.asarray(Image.fromarray(colours).convert("L")))
    deep = colours.astype(np.uint16) * 257
    assert np.array_equal(to_gray(deep, "mean"), np.round(deep.mean(axis=2)))
    assert to_gray(np.full((2, 2, 3), 65535, np.uint16), "luma").tolist() == [[65535] * 2] * 2


def test_strict_refuses_unequal_channels_in_one_line() -> None:
    frame = np.repeat(noise(40, 50)[:, :, None], 3, axis=2)
    frame[3, 4, 2] ^= 4
    with pytest.raises(InputError, match=r"^frame 'a.png' is coloured: .* up to 4 levels.* 'strict'.*colour 'mean'"):
        prepare(frame, spec(colour="strict"), "frame 'a.png'")
    prepare(frame, spec(colour="mean"))


@pytest.mark.parametrize(
    ("frame", "depth", "message"),
    [
        (noise(32, 32, 14), 8, "uint16 levels, the contract asks for 8-bit"),
        (noise(32, 32, 8), 14, "uint8 levels, the contract asks for 14-bit"),
        (noise(32, 32, 16), 14, "above the 14 bits"),
        (noise(32, 32).astype(np.float32), 8, "float32 levels"),
    ],
)
def test_wrong_bit_depth_is_refused_with_the_mend(frame: Any, depth: int, message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*'bit_depth' under 'input'.*'irforge adopt --bit-depth'"):
        prepare(frame, spec(bit_depth=depth, door="float32"))


def test_14_bit_frames_keep_their_levels_behind_a_float_door() -> None:
    frame = noise(64, 64, 14)
    tensor, _ = prepare(frame, spec(bit_depth=14, door="float32"))
    assert tensor.dtype == np.float32 and np.array_equal(tensor[0, 0], frame)


def test_scaled_8_bit_frames_give_the_8_bit_tensor_behind_min_max() -> None:
    frame = noise(64, 64)
    frame[0, :2] = 0, 255
    deep = frame.astype(np.uint16) * 64
    tensor, _ = prepare(deep, spec(bit_depth=14, gain=MinMaxGain()))
    assert np.array_equal(tensor[0, 0], frame)


def test_min_max_and_percentile_follow_their_formulas() -> None:
    frame = noise(60, 60, 14)
    low, high = int(frame.min()), int(frame.max())
    stretched = apply_gain(frame, MinMaxGain(), 14).astype(float)
    assert np.abs(stretched - (frame - low) * (255 / (high - low))).max() <= 0.5
    low, high = np.percentile(frame, [2, 98], method="inverted_cdf").astype(int)
    clipped = apply_gain(frame, PercentileGain(low=2, high=98), 14).astype(float)
    assert np.abs(clipped - np.clip((frame - low.astype(float)) * (255 / (high - low)), 0, 255)).max() <= 0.5


@pytest.mark.parametrize("gain", [MinMaxGain(), PercentileGain(low=1, high=99), ClaheGain(clip_limit=2, tiles=4)])
def test_a_flat_frame_passes_every_gain(gain: Any) -> None:
    flat = np.full((64, 64), 9000, np.uint16)
    assert len(np.unique(apply_gain(flat, gain, 14))) == 1


def test_clahe_is_opencvs_on_8_bit_frames() -> None:
    frame = noise(64, 64)
    expected = cv2.createCLAHE(3.0, (4, 4)).apply(frame)
    assert np.array_equal(apply_gain(frame, ClaheGain(clip_limit=3, tiles=4), 8), expected)
    assert apply_gain(noise(64, 64, 14), ClaheGain(clip_limit=3, tiles=4), 14).dtype == np.uint8
