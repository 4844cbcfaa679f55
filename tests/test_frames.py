"""Promises of irforge.frames: what a frame becomes at a graph's door."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from irforge.contract import InputSpec, Letterbox, MinMaxGain, PadToMultiple, PercentileGain, Range, Tile
from irforge.errors import InputError, UsageError
from irforge.frames import prepare, prepare_batch, resize, resize_mask
from tests.frame_samples import noise, spec

BILINEAR = Image.Resampling.BILINEAR


def golden_frame(bits: int) -> Any:
    """75 x 90: a slanted sky with two warm spots, by formula and in integers, so that it is the same everywhere."""
    rows, columns = np.mgrid[0:75, 0:90]
    top = (1 << bits) - 1
    levels = (rows * 37 + columns * 23 + (rows * columns) % 17 * 5) * top // 6000
    levels[20, 31] = top
    levels[50:53, 70:73] = top - 3
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("seed", range(20))
def test_antialias_equals_pillow_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, target_height, target_width = (int(v) for v in rng.integers(16, 400, 4))
    frame = noise(height, width, seed=seed)
    # Pass by pass: recent Pillow chooses which comes first by the amount of work.
    passes = Image.fromarray(frame).resize((target_width, height), BILINEAR)
    passes = passes.resize((target_width, target_height), BILINEAR)
    assert np.array_equal(resize(frame, target_height, target_width), np.asarray(passes))


@pytest.mark.parametrize(("height", "width"), [(512, 640), (512, 512), (135, 96), (400, 592), (1080, 1918)])
def test_antialias_to_the_published_size_equals_pillow(height: int, width: int) -> None:
    frame = noise(height, width)
    expected = Image.fromarray(frame).resize((256, height), BILINEAR).resize((256, 256), BILINEAR)
    assert np.array_equal(resize(frame, 256, 256), np.asarray(expected))


@pytest.mark.parametrize("size", [(256, 256), (33, 190), (400, 500)])
def test_antialias_of_raw_counts_is_pillows_float_filter(size: tuple[int, int]) -> None:
    counts = noise(240, 320, bits=14)
    expected = np.asarray(Image.fromarray(counts.astype(np.float32)).resize(size[::-1], BILINEAR))
    found = resize(counts, *size)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.01


@pytest.mark.parametrize("size", [(48, 80), (100, 100), (31, 57)])
def test_linear_is_opencvs_up_to_its_rounding(size: tuple[int, int]) -> None:
    frame = noise(64, 90)
    expected = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(resize(frame, *size, "linear") - expected).max() <= 1


def test_a_frame_of_the_right_size_is_not_copied() -> None:
    frame = noise(64, 64)
    for rule in ("antialias", "linear", "nearest"):
        assert resize(frame, 64, 64, rule) is frame
    assert np.shares_memory(prepare(frame, spec())[0], frame)


def test_one_pixel_target_survives_resize() -> None:
    for row, column in ((21, 21), (20, 33), (0, 0), (63, 63)):
        frame = np.zeros((64, 64), np.uint8)
        frame[row, column] = 240
        half = resize(frame, 32, 32)
        assert np.unravel_index(half.argmax(), half.shape) == (row // 2, column // 2)
        # Antialiased halving spreads a lone pixel by 1/8 3/8 3/8 1/8 a side: nothing of it is lost inside the frame.
        if 0 < row < 63:
            assert half.max() == 34
            assert abs(int(half.sum()) * 4 - 240) <= 32


def test_linear_takes_one_pixel_for_another_and_the_contract_says_so() -> None:
    frame = np.zeros((64, 64), np.uint8)
    frame[21, 21] = 240
    assert resize(frame, 32, 32, "linear").max() == 60
    assert resize(frame, 16, 16, "linear").max() == 60 and resize(frame, 16, 16).max() > 0
    frame[:] = 0
    frame[20, 20] = 240
    assert resize(frame, 16, 16, "linear").max() == 0 and resize(frame, 16, 16).max() > 0


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_resized_as_pillow_does_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, target_height, target_width = (int(v) for v in rng.integers(16, 700, 4))
    mask = rng.random((height, width)) > 0.5
    expected = Image.fromarray(mask.astype(np.uint8)).resize((target_width, target_height), Image.Resampling.NEAREST)
    assert np.array_equal(resize_mask(mask, target_height, target_width), np.asarray(expected, bool))


def test_halving_a_mask_keeps_odd_rows_and_columns() -> None:
    mask = np.zeros((64, 64), bool)
    mask[21, 33] = mask[40, 40] = True
    half = resize_mask(mask, 32, 32)
    assert half[10, 16] and half.sum() == 1


GOLDEN = {
    "8 squash antialias": "adb2f0eff7cec344",
    "8 squash linear": "1543bc291383b3c1",
    "8 squash nearest": "8422c99ab26c3e42",
    "8 letterbox": "6c1d6891123c4fe9",
    "8 pad": "eae45c14ef2dca73",
    "8 three channels": "40b3934187686e8d",
    "8 min-max": "adb2f0eff7cec344",
    "14 min-max": "bc03d5642c88a8d2",
    "14 percentile": "b3540a00ff06dd84",
    "14 raw": "4e2e0624544a9346",
    "14 raw linear": "d3274358deb106d8",
    "14 raw nearest": "82f90f5d656ad69d",
    "14 raw letterbox": "9b30263ded69d98e",
    "14 raw pad": "451e1c4a0694e82a",
}


def golden_cases() -> dict[str, tuple[int, InputSpec]]:
    deep = {"bit_depth": 14}
    raw = {"bit_depth": 14, "door": "float32"}
    return {
        "8 squash antialias": (8, spec()),
        "8 squash linear": (8, spec(resize="linear")),
        "8 squash nearest": (8, spec(resize="nearest")),
        "8 letterbox": (8, spec(fit=Letterbox(), pad_level=101.4)),
        "8 pad": (8, spec(fit=PadToMultiple(multiple=32), height=96, width=96, pad_level=107.8)),
        "8 three channels": (8, spec(channels=3)),
        "8 min-max": (8, spec(gain=MinMaxGain())),
        "14 min-max": (14, spec(gain=MinMaxGain(), **deep)),
        "14 percentile": (14, spec(gain=PercentileGain(low=1, high=99.5), **deep)),
        "14 raw": (14, spec(**raw)),
        "14 raw linear": (14, spec(resize="linear", **raw)),
        "14 raw nearest": (14, spec(resize="nearest", **raw)),
        "14 raw letterbox": (14, spec(fit=Letterbox(), pad_level=7000.0, **raw)),
        "14 raw pad": (14, spec(fit=PadToMultiple(multiple=16), height=80, width=96, pad_level=7000.0, **raw)),
    }


def digest(tensor: Any) -> str:
    return hashlib.sha256(f"{tensor.dtype.str}{tensor.shape}".encode() + tensor.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("case", golden_cases())
def test_golden_frame_becomes_the_same_tensor_on_every_machine(case: str) -> None:
    bits, wanted = golden_cases()[case]
    tensor, _ = prepare(golden_frame(bits), wanted)
    assert digest(tensor) == GOLDEN[case]


def test_a_batch_holds_what_single_frames_become() -> None:
    frames = [golden_frame(8), golden_frame(8)[::-1], noise(40, 50)]
    batch, geometries = prepare_batch(frames, spec(fit=Letterbox()))
    for row, (frame, geometry) in enumerate(zip(frames, geometries, strict=True)):
        tensor, alone = prepare(frame, spec(fit=Letterbox()))
        assert np.array_equal(batch[row : row + 1], tensor) and geometry == alone


def test_no_stage_reads_or_levels_frames_on_its_own() -> None:
    root = Path(__file__).parents[1]
    own = re.compile(r"cv2\.(imread|imdecode|createCLAHE|equalizeHist|normalize)|from PIL|import PIL|Image\.open")
    modules = [path for stage in ("train", "export", "calib", "runtime") for path in (root / stage).rglob("*.py")]
    assert len(modules) > 5
    # Packages carry a reader of frames to where irforge is not; test_folder.py holds it to irforge's.
    modules = [path for path in modules if path.parent.name != "standalone"]
    assert [str(path) for path in modules if own.search(path.read_text())] == []


@pytest.mark.parametrize("size", [(15, 64), (64, 15), (1, 1)])
def test_a_frame_below_16_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least 16 pixels"):
        prepare(noise(*size), spec())


def test_a_frame_larger_than_the_padded_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"65 pixels high.*at most 64.*--size"):
        prepare(noise(65, 64), spec(fit=PadToMultiple(multiple=16)))


def test_tiles_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="fit 'tile'"):
        prepare(noise(64, 64), spec(fit=Tile(overlap=8)))


def test_frames_of_two_sizes_do_not_make_a_dynamic_batch() -> None:
    wide = Range(min=32, opt=64, max=640, multiple=32)
    with pytest.raises(InputError, match=r"becomes 96x96, the first of its batch 64x64"):
        prepare_batch([noise(64, 64), noise(80, 80)], spec(height=wide, width=wide, fit=PadToMultiple(multiple=32)))
