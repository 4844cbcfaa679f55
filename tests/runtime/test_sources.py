"""Promises of the frame sources."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from irforge.errors import EnvironmentFault, InputError, UsageError
from irforge.runtime.sources import Layout, open_source
from irforge.runtime.sources.synthetic import Scene, Synthetic
from irforge.runtime.sources.video import DeepVideoFile
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


@pytest.mark.parametrize(
    ("codec", "pixels", "depth"),
    [("ffv1", "gray16le", 16), ("ffv1", "gray14le", 14), ("ffv1", "gray10le", 10), ("ffv1", "yuv420p10le", 10)],
)
def test_a_deep_video_keeps_every_level(tmp_path: Path, codec: str, pixels: str, depth: int) -> None:
    frames = list(np.random.default_rng(0).integers(0, 1 << depth, (6, 48, 70), dtype=np.uint16))
    path = tmp_path / "deep.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 70, pixels
        for frame in frames:
            picture = av.VideoFrame(70, 48, pixels)
            for number, plane in enumerate(picture.planes):
                rows = np.full((plane.height, plane.line_size // 2), 512, np.uint16)
                if number == 0:
                    rows[:, :70] = frame
                plane.update(rows.tobytes())
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    with open_source(path) as source:
        assert (source.frames, source.fps, source.size) == (6, 25.0, (48, 70))
        records = list(source.records())
    assert [record.seconds for record in records] == pytest.approx([k / 25 for k in range(6)], abs=1e-3)
    for record, frame in zip(records, frames, strict=True):
        assert record.frame.dtype == np.uint16 and np.array_equal(record.frame, frame)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_pyav_reads_what_opencv_cannot(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV does not encode {codec}")
    ramp = np.tile(np.arange(128, dtype=np.uint8), (96, 1))
    path = write_video(tmp_path / "clip.mp4", [ramp] * 4, codec=codec, pixels="yuv420p")
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ClosedCapture())
    with open_source(path) as source:
        found = list(source)
    assert len(found) == 4 and {frame.shape for frame in found} == {(96, 128, 3)}
    # Video range, chroma and compression cost a level or two; a wrong plane or matrix would cost dozens.
    assert np.abs(found[0][..., 1].astype(int) - ramp).max() <= 6


class ClosedCapture:
    """An OpenCV without codecs."""

    def isOpened(self) -> bool:  # noqa: N802
        return False

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        return


def test_a_deep_video_without_pyav_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [frame.astype(np.uint16) << 6 for frame in noise(2)]
    path = write_video(tmp_path / "deep.mkv", frames, pixels="gray16le")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EnvironmentFault, match=r"stores 16 bits.*pip install 'irforge\[video\]'"):
        open_source(path)


def test_a_corrupt_frame_in_a_deep_video_is_named_and_those_before_it_are_whole(tmp_path: Path) -> None:
    frames = [frame.astype(np.uint16) << 6 for frame in noise(8)]
    path = write_video(tmp_path / "deep.mkv", frames, pixels="gray16le")
    content = bytearray(path.read_bytes())
    middle = len(content) * 5 // 8
    for offset in range(0, 400, 3):
        content[middle + offset] ^= 0xFF
    path.write_bytes(content)
    good = 0
    with open_source(path) as source, pytest.raises(InputError, match=r"frame \d of video '.*deep.mkv' is damaged"):
        for found, stored in zip(source, frames, strict=False):
            assert np.array_equal(found, stored)
            good += 1
    assert good in (4, 5)


@pytest.mark.parametrize("which", [7, 18])
def test_a_corrupt_frame_in_an_8_bit_video_is_named_too_however_near_the_end(tmp_path: Path, which: int) -> None:
    path = write_video(tmp_path / "clip.avi", noise(20), codec="mjpeg", pixels="yuvj420p")
    whole = [frame.copy() for frame in open_source(path)]
    content = bytearray(path.read_bytes())
    # Where each JPEG picture begins.
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", content)]
    begin, length = starts[which] + 2, starts[which + 1] - starts[which] - 20
    content[begin : begin + length] = bytes(length)
    path.write_bytes(content)
    found = []
    with (
        open_source(path) as source,
        pytest.raises(InputError, match=f"frame {which} of video '.*clip.avi' is damaged"),
    ):
        found.extend(source)
    assert len(found) == which and all(map(np.array_equal, found, whole))


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
    with DeepVideoFile(str(joined), av) as source:
        assert {frame.shape for frame in source} == {(48, 64, 3), (96, 128, 3)}


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


# --- raw files


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_raw_file_is_frame_after_frame_of_counts(tmp_path: Path, order: str) -> None:
    frames = np.random.default_rng(0).integers(0, 1 << 14, (5, 34, 40)).astype(np.uint16)
    path = tmp_path / "clip.y16"
    path.write_bytes(frames.astype(f"{order}u2").tobytes())
    with open_source(path, Layout((34, 40), 14, order == ">")) as source:
        assert (source.frames, source.size) == (5, (34, 40))
        found = list(source)
    assert all(frame.dtype == np.uint16 for frame in found)
    assert np.array_equal(found, frames)


def test_a_raw_file_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "clip.raw").write_bytes(np.stack(noise(3)).tobytes())
    with open_source(tmp_path / "clip.raw", Layout((48, 64), 8)) as source:
        assert np.array_equal(list(source), noise(3))


def test_a_y16_file_is_not_read_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "two.Y16"
    path.write_bytes(np.full((2, 48, 64), 200, "<u2").tobytes())
    with pytest.raises(InputError, match=r"two\.Y16' holds uint16 levels, 8-bit frames .*'irforge adopt --bit-depth'"):
        open_source(path, Layout((48, 64), 8))


def test_a_raw_file_that_does_not_fit_its_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.y16"
    path.write_bytes(np.full((2, 34, 40), 9000, "<u2").tobytes()[:-7])
    with pytest.raises(UsageError, match="--size"):
        open_source(path)
    with pytest.raises(InputError, match="no whole number of frames of 40x34"):
        open_source(path, Layout((34, 40), 14))
    # 0x1FFF becomes 0xFF1F, which 14 bits do not hold.
    path.write_bytes(np.full((2, 34, 40), 0x1FFF, ">u2").tobytes())
    with open_source(path, Layout((34, 40), 14)) as source, pytest.raises(InputError, match="byte order"):
        list(source)
    with pytest.raises(InputError, match="missing"):
        open_source(tmp_path / "missing.raw", Layout((34, 40)))


# --- the synthetic source


def test_a_synthetic_scene_is_the_same_in_any_order_and_its_truth_is_where_the_light_is() -> None:
    scene = Scene(width=80, height=60, frames=200, targets=3, noise=1, speed=3, seed=4)
    source, again = Synthetic(scene), Synthetic(scene)
    frames = list(source)
    assert np.array_equal(again.frame(117), frames[117])
    moved = np.array([source.truth(k)[:, :2] for k in range(200)])
    assert (moved >= 0).all() and (moved <= (77, 57)).all()
    steps = np.abs(np.diff(moved, axis=0))
    assert 1 < steps.max() <= 4
    for index in (0, 63, 199):
        lit = np.zeros((60, 80), bool)
        for left, top, right, bottom in source.truth(index).astype(int):
            lit[top:bottom, left:right] = True
            assert frames[index][top + 1, left + 1] > 180
        assert frames[index][~lit].max() < 100 < 110 < frames[index][lit].min()


def test_a_synthetic_source_is_written_as_text() -> None:
    with open_source("synthetic:64x48,frames=3,targets=1,depth=14,background=8000,contrast=900") as source:
        frames = list(source)
    assert [frame.dtype for frame in frames] == [np.uint16] * 3 and frames[0].shape == (48, 64)
    assert 8500 < frames[0].max() < 9000
    with pytest.raises(UsageError, match="do not fit 2x2"):
        open_source("synthetic:2x2")


WRONG_SCENES = """
    abc 64 x 0x48 1000000x1000000 64x48,frames 64x48,speeed=3 frames=many frames=0 frames=-1 targets=-1
    targets=1000000000 extent=0 speed=-1 contrast=inf background=nan noise=nan noise=-1 depth=7 depth=17 fps=0 fps=-1
    fps=nan fps=1e-300 live=2 seed=-1
"""


@pytest.mark.parametrize("wrong", WRONG_SCENES.split())
def test_what_no_scene_can_have_is_told_how_to_write_one(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"Write synthetic:WIDTHxHEIGHT,NAME=NUMBER,\.\.\. with width, height, frames"):
        open_source(f"synthetic:{wrong}")


def test_a_live_synthetic_source_keeps_its_rate_and_stamps_its_frames() -> None:
    start = time.monotonic()
    with open_source("synthetic:32x32,frames=6,fps=50,live=1") as source:
        assert source.live
        stamps = [record.captured for record in source.records()]
    assert all(stamp is not None and stamp - start >= k / 50 for k, stamp in enumerate(stamps))
