"""Promises of what is done about the faults of thermal cameras."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.contract import Contract, InputSpec, MinMaxGain, Normalization, PercentileGain, Squash
from irforge.errors import InputError, UsageError
from irforge.frames import apply_gain, prepare
from irforge.runtime.corrections import Corrections, parse_size, parse_telemetry, read_dead_pixels
from irforge.runtime.sources import Layout, Source, SourceFrame, open_source
from irforge.runtime.sources.synthetic import Scene, Synthetic
from irforge.runtime.thermal import (
    ColumnNoise,
    CutRows,
    DeadPixels,
    Filter,
    Filtered,
    InvertPolarity,
    Shutter,
    SmoothGain,
    learn_dead_pixels,
)
from tests.box_model import box_contract


def record(frame: np.ndarray, shutter: bool = False) -> SourceFrame:
    return SourceFrame(0, "clip", None, frame, shutter=shutter)


def through(apply: Filter, frames: list[np.ndarray]) -> list[SourceFrame]:
    return [apply(record(frame)) for frame in frames]


def deep_scene(count: int = 30, noise: float = 12) -> list[np.ndarray]:
    scene = Scene(width=64, height=48, frames=count, background=8000, contrast=600, noise=noise, depth=14)
    return list(Synthetic(scene))


# --- telemetry


def test_telemetry_rows_are_cut_off() -> None:
    frame = np.arange(48, dtype=np.uint16)[:, None].repeat(64, axis=1)
    assert CutRows(2, 4)(record(frame)).frame[:, 0].tolist() == list(range(2, 44))
    with pytest.raises(InputError, match="--telemetry"):
        CutRows(40, 8)(record(frame))


# --- dead pixels


def test_dead_pixels_take_the_median_of_live_neighbours() -> None:
    frame = np.full((20, 24), 500, np.uint16)
    frame[4:7, 4:7] = [[10, 20, 30], [40, 60000, 50], [60, 70, 80]]
    frame[0, 0] = 0
    dead = np.zeros(frame.shape, bool)
    dead[5, 5] = dead[0, 0] = True
    mended = DeadPixels(dead)(record(frame)).frame
    assert mended[5, 5] == 45 and mended[0, 0] == 500
    untouched = ~dead
    assert np.array_equal(mended[untouched], frame[untouched])
    assert frame[5, 5] == 60000


def test_a_cluster_is_filled_from_around_it_and_a_hole_is_refused() -> None:
    frame = np.full((20, 24), 500, np.uint16)
    dead = np.zeros(frame.shape, bool)
    dead[8:11, 8:11] = True
    frame[dead] = 0
    assert (DeadPixels(dead)(record(frame)).frame == 500).all()
    dead[3:16, 3:16] = True
    with pytest.raises(InputError, match="no three live pixels"):
        DeadPixels(dead)


def test_a_map_of_another_camera_is_refused_also_in_mid_stream() -> None:
    mend = DeadPixels(np.eye(20, dtype=bool))
    mend(record(np.zeros((20, 20), np.uint8)))
    with pytest.raises(InputError, match="is 20x20, 'clip' 24x20"):
        mend(record(np.zeros((20, 24), np.uint8)))


def test_dead_pixels_are_learned_from_a_flat_scene() -> None:
    random = np.random.default_rng(0)
    vignette = 8000 - 0.2 * ((np.arange(64) - 32) ** 2)[None] - 0.2 * ((np.arange(48) - 24) ** 2)[:, None]
    frames = [random.normal(vignette, 5).astype(np.uint16) for _ in range(30)]
    wrong = {"hot": (5, 7), "stuck": (20, 30), "blinking": (40, 60)}
    for k, frame in enumerate(frames):
        frame[wrong["hot"]] += 200
        frame[wrong["stuck"]] = 7890
        frame[wrong["blinking"]] += 300 * (k % 2)
    assert {tuple(place) for place in np.argwhere(learn_dead_pixels(frames)).tolist()} == set(wrong.values())


def test_learning_refuses_what_teaches_nothing() -> None:
    with pytest.raises(InputError, match="says nothing"):
        learn_dead_pixels([np.zeros((20, 20), np.uint16)])
    random = np.random.default_rng(0)
    scene = (random.random((48, 64)) < 0.1) * 3000 + 8000
    with pytest.raises(InputError, match="not flat"):
        learn_dead_pixels([random.normal(scene, 5).astype(np.uint16) for _ in range(5)])


def test_a_map_comes_from_a_mask_or_a_recording_of_a_flat_scene(tmp_path: Path) -> None:
    mask = np.zeros((44, 64), np.uint8)
    mask[3, 9] = 255
    cv2.imwrite(str(tmp_path / "dead.png"), mask)
    assert np.argwhere(read_dead_pixels(str(tmp_path / "dead.png"), Layout(), CutRows())).tolist() == [[3, 9]]
    frames = np.random.default_rng(0).normal(8000, 5, (20, 48, 64)).astype("<u2")
    frames[:, :4] = np.arange(64) * 900
    frames[:, 4 + 3, 9] = 9000
    (tmp_path / "flat.y16").write_bytes(frames.tobytes())
    learned = read_dead_pixels(f"flat:{tmp_path / 'flat.y16'}", Layout((48, 64)), CutRows(4, 0))
    assert np.argwhere(learned).tolist() == [[3, 9]]


# --- column noise


def test_column_offsets_go_and_targets_and_edges_stay() -> None:
    random = np.random.default_rng(0)
    offsets = random.normal(0, 40, 64)
    scene = np.full((48, 64), 8000.0)
    scene[:, 32:] += 500
    scene[20:23, 10:13] += 300
    noisy = [random.normal(scene + offsets, 3).astype(np.uint16) for _ in range(20)]
    cleaned = through(ColumnNoise(), noisy)[-1].frame.astype(float)
    before = np.abs(np.median(noisy[-1] - scene, axis=0) - np.median(noisy[-1] - scene)).mean()
    after = np.abs(np.median(cleaned - scene, axis=0) - np.median(cleaned - scene)).mean()
    assert before > 25 and after < before / 2
    contrast = cleaned[20:23, 10:13].mean() - cleaned[26:46, 10:13].mean()
    assert contrast == pytest.approx(300, abs=6)
    assert cleaned[30:, 40:].mean() - cleaned[30:, :20].mean() == pytest.approx(500, abs=25)


def test_levels_at_the_end_of_the_scale_do_not_wrap() -> None:
    frame = np.full((48, 64), 65535, np.uint16)
    frame[:, 10] = 65435
    frame[:24, 20] = 0
    frame[24:, 20] = 1
    cleaned = ColumnNoise()(record(frame)).frame
    assert cleaned.min() >= 65435


# --- polarity


def test_polarity_turns_round_and_back() -> None:
    frame = deep_scene(1)[0]
    inverted = InvertPolarity(14)(record(frame))
    assert inverted.frame.dtype == np.uint16 and np.array_equal(inverted.frame, 16383 - frame)
    assert np.array_equal(InvertPolarity(14)(inverted).frame, frame)
    with pytest.raises(InputError, match="above 8 bits"):
        InvertPolarity(8)(record(frame))
    with pytest.raises(InputError, match="uint8 levels, which are not 14-bit counts"):
        InvertPolarity(14)(record(np.zeros((16, 16), np.uint8)))


# --- gain control


def gain_contract(gain: MinMaxGain | PercentileGain, **fields: object) -> Contract:
    values = {"height": 48, "width": 64, "fit": Squash(), "bit_depth": 14, "gain": gain}
    spec = InputSpec(**values | {"normalization": Normalization(mean=0, std=1)} | fields)
    return box_contract().model_copy(update={"input": spec})


@pytest.mark.parametrize("gain", [MinMaxGain(), PercentileGain(low=1, high=99.5)])
def test_the_first_frame_gets_the_contracts_own_gain(gain: MinMaxGain | PercentileGain) -> None:
    contract = gain_contract(gain)
    frame = deep_scene(1)[0]
    smoothed = SmoothGain(contract)(record(frame)).frame
    assert np.array_equal(smoothed, apply_gain(frame, gain, 14))
    tensor, _ = prepare(smoothed, Corrections(smooth_gain=0.05).contract(contract).input)
    assert np.array_equal(tensor, prepare(frame, contract.input)[0])


def test_a_hot_object_that_enters_does_not_darken_the_scene_at_once() -> None:
    frames = deep_scene(40, noise=40)
    for frame in frames[20:]:
        frame[:24, :32] = 9000
    gain = PercentileGain(low=1, high=99)
    rest = np.s_[30:, 40:]
    steady = through(SmoothGain(gain_contract(gain), 0.1), frames)
    means = [float(found.frame[rest].mean()) for found in steady]
    alone = [float(apply_gain(frame, gain, 14)[rest].mean()) for frame in frames]
    assert alone[19] - alone[20] > 60
    assert means[19] - means[20] < 0.75 * (alone[19] - alone[20])
    assert means[39] == pytest.approx(alone[39], abs=8)
    assert all(later <= sooner + 3 for sooner, later in pairwise(means[20:]))


def test_a_closed_shutter_does_not_move_the_gain() -> None:
    frames = deep_scene(2)
    smooth = SmoothGain(gain_contract(MinMaxGain()), 0.5)
    first = smooth(record(frames[0])).frame
    smooth(record(np.full((48, 64), 12000, np.uint16), shutter=True))
    assert np.array_equal(smooth(record(frames[0])).frame, first)


def test_there_must_be_a_gain_to_smooth() -> None:
    with pytest.raises(UsageError, match="nothing to smooth"):
        SmoothGain(box_contract())
    with pytest.raises(UsageError, match="in its graph"):
        SmoothGain(gain_contract(MinMaxGain(), door="float32"))
    with pytest.raises(InputError, match="above the 14 bits"):
        SmoothGain(gain_contract(MinMaxGain()))(record(np.full((48, 64), 20000, np.uint16)))


# --- together


def test_filters_behind_a_source_are_a_source() -> None:
    with Filtered(open_source("synthetic:64x48,frames=5"), [CutRows(0, 8), InvertPolarity(8)]) as source:
        assert (source.frames, source.fps, source.live) == (5, 25.0, False)
        frames = list(source)
    plain = list(open_source("synthetic:64x48,frames=5"))
    assert np.array_equal(frames, [255 - frame[:40] for frame in plain])


def test_a_lost_source_says_so_through_its_filters() -> None:
    inner = Synthetic(Scene(width=32, height=32))
    outer: Source = Filtered(inner, [Shutter()])
    said: list[str] = []
    outer.notify = said.append
    inner.notify("lost")
    assert said == ["lost"]


def test_corrections_come_in_the_order_of_the_faults() -> None:
    dead = np.zeros((44, 64), bool)
    dead[10, 10] = True
    wanted = Corrections(CutRows(4, 0), shutter=True, dead=dead, column_noise=True, invert=True, smooth_gain=0.1)
    contract = gain_contract(MinMaxGain())
    source = Synthetic(Scene(width=64, height=48, frames=3, background=8000, depth=14))
    with wanted.behind(source, contract) as frames:
        found = list(frames)
    assert [frame.dtype for frame in found] == [np.uint8] * 3 and found[0].shape == (44, 64)
    assert Corrections().behind(source, contract) is source


def test_sizes_and_rows_are_read_as_they_are_written() -> None:
    assert parse_size("640x512") == (512, 640)
    assert parse_telemetry("2,3") == CutRows(2, 3)
    for wrong in ("640", "x512", "axb", "0x4"):
        with pytest.raises(UsageError, match="no size"):
            parse_size(wrong)
    with pytest.raises(UsageError, match="telemetry rows"):
        parse_telemetry("3")
