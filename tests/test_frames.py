"""Promises of irforge.frames: what a frame becomes, and the way back."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from irforge.contract import (
    ClaheGain,
    InputSpec,
    Letterbox,
    MinMaxGain,
    Normalization,
    PadToMultiple,
    PercentileGain,
    Range,
    Squash,
    Tile,
)
from irforge.errors import InputError, UsageError
from irforge.frames import (
    Geometry,
    apply_gain,
    fit_geometry,
    frame_size,
    prepare,
    prepare_batch,
    read_frame,
    read_mask,
    read_pages,
    resize,
    resize_mask,
    to_gray,
)

BILINEAR = Image.Resampling.BILINEAR


def spec(**changes: Any) -> InputSpec:
    fields: dict[str, Any] = {"height": 64, "width": 64, "fit": Squash(), "normalization": Normalization(mean=0, std=1)}
    return InputSpec(**(fields | changes))


def noise(height: int, width: int, bits: int = 8, seed: int = 0) -> Any:
    levels = np.random.default_rng(seed).integers(0, 1 << bits, (height, width))
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def golden_frame(bits: int) -> Any:
    """75 x 90: a slanted sky with two warm spots, by formula and in integers, so that it is the same everywhere."""
    rows, columns = np.mgrid[0:75, 0:90]
    top = (1 << bits) - 1
    levels = (rows * 37 + columns * 23 + (rows * columns) % 17 * 5) * top // 6000
    levels[20, 31] = top
    levels[50:53, 70:73] = top - 3
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


# ---------------------------------------------------------------- resizing


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


# ---------------------------------------------------------------- golden tensors: one code for every stage

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


# ---------------------------------------------------------------- geometry


def geometries(seed: int) -> list[Geometry]:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(16, 700, 2))
    dynamic = Range(min=64, opt=256, max=1024, multiple=32)
    wanted = [
        spec(height=256, width=256),
        spec(height=512, width=640, fit=Letterbox()),
        spec(height=704, width=704, fit=PadToMultiple(multiple=32)),
        spec(height=dynamic, width=dynamic, fit=PadToMultiple(multiple=16)),
    ]
    return [fit_geometry(height, width, w) for w in wanted]


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


# ---------------------------------------------------------------- colour, depth, gain


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
    with pytest.raises(InputError, match=f"{message}.*--bit-depth"):
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


# ---------------------------------------------------------------- frames that cannot be used


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


# ---------------------------------------------------------------- files


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def stored(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_levels_and_channels_are_kept_as_stored(tmp_path: Path) -> None:
    gray, deep = noise(40, 50), noise(40, 50, 16)
    colours = np.random.default_rng(2).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    alpha = np.dstack([colours, np.full((40, 50), 255, np.uint8)])
    files: list[tuple[str, bytes, Any]] = [
        ("gray.png", encoded(Image.fromarray(gray), "PNG"), gray),
        ("gray.tif", encoded(Image.fromarray(gray), "TIFF"), gray),
        ("gray.bmp", encoded(Image.fromarray(gray), "BMP"), gray),
        ("deep.png", encoded(Image.fromarray(deep), "PNG"), deep),
        ("deep.tif", encoded(Image.fromarray(deep), "TIFF"), deep),
        ("rgb.png", encoded(Image.fromarray(colours), "PNG"), colours),
        ("rgb.tif", encoded(Image.fromarray(colours), "TIFF", compression="tiff_deflate"), colours),
        ("rgba.png", encoded(Image.fromarray(alpha), "PNG"), colours),
        ("bits.png", encoded(Image.fromarray(gray > 127), "PNG"), (gray > 127) * np.uint8(255)),
    ]
    for name, content, expected in files:
        found = read_frame(stored(tmp_path, name, content))
        assert found.dtype == expected.dtype and np.array_equal(found, expected), name
        assert frame_size(tmp_path / name) == (40, 50)


@pytest.mark.parametrize("progressive", [0, 1])
def test_the_size_of_a_jpeg_is_read_from_its_header(tmp_path: Path, progressive: int) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.full((40, 50), 90, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    content = path.read_bytes()
    # A thumbnail's header inside another segment must not be taken for the picture's.
    small = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    thumbnail = b"\xff\xe1" + (2 + len(small)).to_bytes(2, "big") + small
    (tmp_path / "b.jpg").write_bytes(content[:2] + thumbnail + content[2 : len(content) // 2])
    assert frame_size(path) == frame_size(tmp_path / "b.jpg") == (40, 50)


def test_rgb_stored_gray_frames_are_the_gray_frame(tmp_path: Path) -> None:
    gray = noise(64, 64)
    picture = Image.fromarray(gray)
    variants = {
        "rgb.png": encoded(picture.convert("RGB"), "PNG"),
        "rgba.png": encoded(picture.convert("RGBA"), "PNG"),
        "la.png": encoded(picture.convert("LA"), "PNG"),
        "palette.png": encoded(palette_of_grays(gray), "PNG"),
        "palette.tif": encoded(palette_of_grays(gray), "TIFF"),
    }
    for name, content in variants.items():
        tensor, _ = prepare(read_frame(stored(tmp_path, name, content)), spec(colour="strict"))
        assert np.array_equal(tensor[0, 0], gray), name


def palette_of_grays(gray: Any) -> Image.Image:
    """Gray levels stored as indices into a shuffled palette: reading the indices would show nonsense."""
    order = np.random.default_rng(3).permutation(256).astype(np.uint8)
    place = np.argsort(order).astype(np.uint8)
    image = Image.fromarray(place[gray])
    image.putpalette(np.repeat(order[:, None], 3, axis=1).tobytes())
    return image


def test_jpeg_frames_are_read(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(np.full((40, 50), 90, np.uint8)), "JPEG")
    found = read_frame(stored(tmp_path, "a.jpg", content))
    assert found.shape == (40, 50) and np.abs(found.astype(int) - 90).max() <= 1


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    pages = np.stack([noise(40, 50, 14, seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    assert np.array_equal(read_frame(tmp_path / "pages.tif"), pages[0])
    assert np.array_equal(np.stack(read_pages(tmp_path / "pages.tif")), pages)


def packed_tiff(frame: Any, bits: int) -> bytes:
    """A TIFF whose levels are packed in `bits` bits each, rows padded to whole bytes, as cameras write them."""
    rows = ["".join(f"{level:0{bits}b}" for level in row) for row in frame.tolist()]
    rows = [row + "0" * (-len(row) % 8) for row in rows]
    data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    height, width = frame.shape
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 126), (277, 1), (278, height)]
    entries.append((279, len(data)))
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0)
    return head.ljust(126, b"\0") + data


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_tiffs_give_raw_counts(tmp_path: Path, bits: int) -> None:
    frame = noise(32, 40, bits)
    path = stored(tmp_path, "packed.tif", packed_tiff(frame, bits))
    assert np.array_equal(read_frame(path), frame)
    assert np.array_equal(read_pages(path)[0], frame)


@pytest.mark.parametrize("bigtiff", [True, False])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiffs_of_every_byte_order_give_raw_counts(tmp_path: Path, byteorder: Any, bigtiff: bool) -> None:
    for frame in (noise(32, 40, 16), np.random.default_rng(4).integers(0, 65536, (32, 40, 3)).astype(np.uint16)):
        photometric: Any = "rgb" if frame.ndim == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "a.tif", frame, byteorder=byteorder, bigtiff=bigtiff, photometric=photometric)
        assert np.array_equal(read_frame(tmp_path / "a.tif"), frame)


@pytest.mark.parametrize("name", ["täglich ärger.png", "红外 01.png", os.fsdecode(b"latin\xe9.png"), "no suffix"])
def test_odd_paths_are_read(tmp_path: Path, name: str) -> None:
    gray = noise(40, 50)
    path = stored(tmp_path, name, encoded(Image.fromarray(gray), "PNG"))
    assert np.array_equal(read_frame(path), gray)


def refused(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(InputError) as caught:
        read_frame(path)
    # The decoders of OpenCV print to stderr: a user gets one line, ours.
    assert capfd.readouterr().err == ""
    assert str(path) in caught.value.line and "\n" not in caught.value.line
    return caught.value.line


@pytest.mark.parametrize("cut", [5, 20, 60, 0.3, 0.6, 0.95, -13, -12, -4, -1])
def test_a_truncated_png_is_refused(tmp_path: Path, cut: float, capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(Image.fromarray(noise(64, 64)), "PNG")
    keep = int(cut * len(content)) if isinstance(cut, float) else cut
    line = refused(stored(tmp_path, "cut.png", content[:keep]), capfd)
    assert "truncated PNG" in line or keep == 5


def test_a_damaged_png_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encoded(Image.fromarray(noise(64, 64)), "PNG"))
    content[len(content) // 2] ^= 0xFF
    assert "damaged PNG" in refused(stored(tmp_path, "bad.png", bytes(content)), capfd)


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_truncated_jpeg_is_refused(tmp_path: Path, cut: float, capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(Image.fromarray(noise(64, 64)), "JPEG")
    assert "truncated JPEG" in refused(stored(tmp_path, "cut.jpg", content[: int(cut * len(content))]), capfd)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_a_truncated_tiff_is_refused(
    tmp_path: Path, cut: float, compression: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(64, 64, 14), compression=compression)
    content = buffer.getvalue()
    refused(stored(tmp_path, "cut.tif", content[: int(cut * len(content))]), capfd)


def test_what_is_no_image_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no image" in refused(stored(tmp_path, "text.png", b"a label, not a frame"), capfd)
    assert "is empty" in refused(stored(tmp_path, "empty.png", b""), capfd)
    assert "cannot read" in refused(tmp_path / "missing.png", capfd)
    assert "cannot read" in refused(tmp_path, capfd)
    tifffile.imwrite(tmp_path / "float.tif", np.ones((32, 32), np.float32))
    assert "float32 levels" in refused(tmp_path / "float.tif", capfd)
    tifffile.imwrite(tmp_path / "signed.tif", np.ones((32, 32), np.int16))
    assert "int16 levels" in refused(tmp_path / "signed.tif", capfd)


def test_masks_of_every_kind_are_one_mask(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), bool)
    mask[3:6, 7:9] = True
    white = Image.fromarray(mask * np.uint8(255))
    red = Image.fromarray(mask.astype(np.uint8))
    red.putpalette([0, 0, 0, 128, 0, 0])
    smooth = mask * np.uint8(255)
    smooth[6, 7:9] = 100
    files = {
        "white.png": encoded(white, "PNG"),
        "ones.png": encoded(Image.fromarray(mask.astype(np.uint8)), "PNG"),
        "rgb.png": encoded(white.convert("RGB"), "PNG"),
        "rgba.png": encoded(white.convert("RGBA"), "PNG"),
        "bits.png": encoded(Image.fromarray(mask), "PNG"),
        "red.png": encoded(red, "PNG"),
        "smooth.png": encoded(Image.fromarray(smooth), "PNG"),
        "deep.png": encoded(Image.fromarray(mask * np.uint16(65535)), "PNG"),
    }
    for name, content in files.items():
        assert np.array_equal(read_mask(stored(tmp_path, name, content)), mask), name


def test_label_numbers_are_no_mask(tmp_path: Path) -> None:
    labels = np.zeros((40, 50), np.uint8)
    labels[3:6, 7:9] = 38
    with pytest.raises(InputError, match=r"levels up to 38.*0 and 255"):
        read_mask(stored(tmp_path, "labels.png", encoded(Image.fromarray(labels), "PNG")))
