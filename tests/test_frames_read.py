"""Promises of irforge.frames: what is read from files, and what is refused."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from irforge.errors import InputError
from irforge.frames import frame_size, prepare, read_frame, read_mask, read_pages
from tests.frame_samples import noise, spec


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
