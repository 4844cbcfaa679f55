"""Promises of the frame sources."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from irforge.errors import InputError, UsageError
from irforge.runtime.sources import open_source
from irforge.samples import FRAMES


def write_video(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "ffv1",
    pixels: str = "gray",
    fps: int = 25,
    form: str | None = None,
) -> Path:
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            stored = "rgb24" if frame.ndim == 3 else "gray16le" if frame.dtype == np.uint16 else "gray"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=stored).reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def noise(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width), dtype=np.uint8))


def test_a_folder_gives_its_images_in_natural_order(tmp_path: Path) -> None:
    frames = noise(11)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"frame{index}.png"), frame)
    (tmp_path / "notes.txt").write_text("no frame")
    with open_source(tmp_path) as source:
        assert (source.frames, source.fps, source.size) == (11, None, (48, 64))
        records = list(source.records())
    assert [record.id for record in records] == [f"frame{index}.png" for index in range(11)]
    assert [record.index for record in records] == list(range(11))
    assert all(record.seconds is None for record in records)
    for record, frame in zip(records, frames, strict=True):
        assert np.array_equal(record.frame, frame)


def test_a_pattern_gives_the_images_that_match(tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png", "b1.png", "a3.json"):
        cv2.imwrite(str(tmp_path / name), noise(1)[0]) if name.endswith("png") else (tmp_path / name).write_text("{}")
    with open_source(tmp_path / "a*") as source:
        assert [record.id for record in source.records()] == ["a1.png", "a2.png"]
    with pytest.raises(InputError, match="no frames match"):
        open_source(tmp_path / "c*.png")


def test_a_dataset_split_is_a_source() -> None:
    with open_source(f"{FRAMES}:test") as source:
        assert source.frames == len(list(source)) == 24


def test_a_single_image_keeps_its_levels(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 16384, (32, 40), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "raw.png"), frame)
    with open_source(tmp_path / "raw.png") as source:
        (found,) = source
    assert found.dtype == np.uint16 and np.array_equal(found, frame)


def test_the_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    pages = [np.full((20, 24), level, np.uint16) for level in (7, 900, 16000)]
    cv2.imwritemulti(str(tmp_path / "stack.tif"), pages)
    with open_source(tmp_path / "stack.tif") as source:
        assert source.frames == 3
        assert [int(frame[0, 0]) for frame in source] == [7, 900, 16000]


def test_a_video_gives_frames_with_media_time(tmp_path: Path) -> None:
    frames = noise(5)
    with open_source(write_video(tmp_path / "clip.mkv", frames, fps=50)) as source:
        assert (source.name, source.frames, source.fps, source.size) == ("clip.mkv", 5, 50.0, (48, 64))
        records = list(source.records())
    assert [record.seconds for record in records] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08])
    for record, frame in zip(records, frames, strict=True):
        assert np.array_equal(record.frame, np.repeat(frame[:, :, None], 3, axis=2))


def test_an_impossible_rate_is_no_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", noise(5), codec="mjpeg", pixels="yuvj420p")
    content = bytearray(path.read_bytes())
    rate = content.index(b"strh") + 8 + 24
    content[rate : rate + 4] = (1_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with open_source(path) as source:
        assert source.fps is None
        assert [record.seconds for record in source.records()] == [None] * 5


def test_a_coloured_video_comes_as_rgb(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    with open_source(write_video(tmp_path / "red.avi", [red], codec="rawvideo", pixels="bgr24")) as source:
        (found,) = source
    assert np.array_equal(found, red)


def test_a_video_deeper_than_eight_bits_is_refused_and_not_cut(tmp_path: Path) -> None:
    frames = [(frame.astype(np.uint16) << 6) for frame in noise(2)]
    for pixels, depth in (("gray16le", 16), ("gray10le", 10)):
        path = write_video(tmp_path / f"{pixels}.mkv", frames, pixels=pixels)
        with pytest.raises(InputError, match=f"stores {depth} bits"):
            open_source(path)


def test_a_stream_that_changes_size_goes_on_at_its_first(tmp_path: Path) -> None:
    # MPEG-2 elementary streams may be joined byte by byte.
    parts = [
        write_video(tmp_path / f"{name}.m2v", frames, "mpeg2video", "yuv420p", form="mpeg2video")
        for name, frames in (("small", noise(6)), ("large", noise(6, 96, 128)))
    ]
    joined = tmp_path / "joined.m2v"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(joined) as source:
        assert source.frames is None
        shapes = [frame.shape for frame in source]
    assert len(shapes) >= 10 and set(shapes) == {(48, 64, 3)}


def test_a_truncated_video_is_an_error_and_not_a_short_one(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", noise(40)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    with open_source(cut) as source, pytest.raises(InputError, match=r"ends after \d+ of 40 frames"):
        list(source)
    mp4 = write_video(tmp_path / "whole.mp4", noise(40), "mpeg4", "yuv420p").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(mp4[: len(mp4) // 2])
    with pytest.raises(InputError, match="cannot open"):
        open_source(tmp_path / "cut.mp4")


@pytest.mark.parametrize("name", ["missing.mp4", "missing.png", "missing/folder"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="missing"):
        list(open_source(tmp_path / name))


def test_an_empty_folder_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    with pytest.raises(InputError, match="holds no frames"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="neither an image nor a video"):
        open_source(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="no split 'dev'"):
        open_source(f"{FRAMES}:dev")
