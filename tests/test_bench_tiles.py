"""Promises of `irforge bench --tile`: times and figures of whole frames, as `irforge run --tile` answers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.bench import bench_models
from irforge.contract import Tile
from irforge.datasets import open_dataset
from irforge.errors import UsageError
from irforge.runtime.benchmark import Schedule, measure_latency
from irforge.runtime.detector import load
from irforge.runtime.measure import Plan
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import Report, read_report, write_report
from irforge.runtime.report.table import print_report
from irforge.runtime.tiling import TiledDetector
from irforge.session import Timings
from irforge.tiles import in_tiles
from tests.box_model import box_frame, write_box_model
from tests.test_bench import as_precision, run

PLAN = Plan(Schedule(rounds=1, frames_per_round=2, warm_up=0), batches=(1, 2))
# Across the seams between tiles of 64 that begin at 0, 46 and 0, 36 as well as far from them.
TARGETS = {"a": [(52, 30), (20, 47)], "b": [(54, 48), (90, 80)], "c": []}
Model = Callable[..., Path]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Frames of 110x100, larger than the models."""
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for name, targets in TARGETS.items():
        frame = box_frame(*targets, size=(100, 110))
        cv2.imwrite(str(tmp_path / "set" / "images" / f"{name}.png"), frame)
        cv2.imwrite(str(tmp_path / "set" / "masks" / f"{name}.png"), np.where(frame > 90, 255, 0).astype(np.uint8))
    return tmp_path / "set"


def bench(models: list[Path], data: Path, tile: int | None = 16, **settings: object) -> Report:
    return bench_models(models, plan=lambda size: PLAN, data=str(data), tile=tile, command="here", **settings)


def test_masks_in_tiles_score_as_those_of_a_model_of_the_frames_size(spot_model: Model, data: Path) -> None:
    small = bench([spot_model("spot.onnx"), as_precision(spot_model("spot.onnx"), "int8")], data)
    whole = bench([spot_model("spot.onnx", size=(100, 110))], data, tile=None)
    assert small.models[0].accuracy == small.models[1].accuracy == whole.models[0].accuracy
    assert small.models[0].accuracy.found == 4
    parity = small.models[1].parity
    assert parity.passed and parity.outputs[0].max_abs == 0 and parity.frames == 3
    assert small.models[0].latency.frame.n == 2


def test_boxes_in_tiles_are_counted_once_and_compared(tmp_path: Path, data: Path) -> None:
    moved = write_box_model(tmp_path / "peaks.fp16.onnx", precision="fp16", shift=0.25)
    report = bench([write_box_model(tmp_path / "peaks.onnx"), moved], data)
    right, other = report.models
    assert report.data.targets == 4
    assert (right.accuracy.centre.right, right.accuracy.centre.wrong, right.accuracy.iou50.f1) == (4, 0, 1)
    assert other.parity.boxes.max_box == pytest.approx(0.25, abs=1e-5) and other.parity.boxes.alone == 0


def test_accuracy_is_of_the_answers_that_a_run_in_tiles_gives(tmp_path: Path, data: Path) -> None:
    # So eager that most of what it finds is false, and lies in the corners of tiles.
    model = write_box_model(tmp_path / "peaks.onnx", bias=5.0)
    accuracy = bench([model], data).models[0].accuracy
    with TiledDetector(load(model, threads=1), 16) as detector:
        found = sum(len(detector(sample.frame())) for sample in open_dataset(data))
    assert found == accuracy.centre.right + accuracy.centre.wrong > 4


def test_the_report_says_how_frames_were_cut(
    spot_model: Model, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = bench([spot_model()], data)
    model = report.models[0]
    assert (model.tiles.overlap, model.tiles.fewest, model.tiles.most, model.tiles.a_run) == (16, 4, 4, 8)
    assert model.protocol == "tiles of 64 × 64 that overlap by 16 pixels: frames at their own size, scored whole"
    assert not model.batches and model.batch_note == "the tiles of a frame fill its batches, of 8"
    write_report(report, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == report
    words = "each frame in 4 tiles that overlap by 16 pixels, 8 in a run of the graph"
    page = render(report)
    assert page.count(words) == 2 and "times of whole frames" in page and "it measures one tile" in page
    print_report(report)
    assert "times are of whole frames" in " ".join(capsys.readouterr().out.split())


def test_without_tiles_a_report_says_nothing_of_them(spot_model: Model, data: Path) -> None:
    report = bench([spot_model()], data, tile=None)
    assert report.models[0].tiles is None and "tiles" not in render(report)


def test_a_contract_that_asks_for_tiles_gets_them(spot_model: Model, data: Path) -> None:
    report = bench([spot_model(fit=Tile(overlap=8))], data, tile=None)
    assert report.models[0].tiles.overlap == 8 and report.models[0].accuracy.pd == 1


def test_the_device_clock_counts_all_runs_of_a_frame(spot_model: Model, spot_frame: Callable[..., np.ndarray]) -> None:
    with TiledDetector(load(spot_model(batch=1), threads=1), 16) as detector:
        run = detector.session.run

        def timed(*arguments):
            detector.session.last_timings = Timings(compute=0.00125)
            return run(*arguments)

        detector.session.run = timed  # type: ignore[method-assign]
        found = measure_latency({"m": detector}, [spot_frame(100, 110)], Schedule(1, 2, 0), threads=1)["m"]
    assert found.gpu is not None and found.gpu.p50 == pytest.approx(4 * 1.25)


def test_what_cannot_be_cut_is_one_line(spot_model: Model, data: Path) -> None:
    with pytest.raises(UsageError, match="tiles of 64x64 cannot overlap by 33 pixels"):
        bench([spot_model()], data, tile=33)
    with pytest.raises(UsageError, match=r"either cut .--tile. or fitted whole .--protocol native"):
        bench([spot_model()], data, protocol="native")


def test_a_model_of_dynamic_size_is_cut_into_tiles_of_the_size_asked_for(spot_model: Model) -> None:
    with load(spot_model(), threads=1) as detector:
        spec = in_tiles(detector.contract, 0).input
    assert spec.fit == Tile(overlap=0) and spec.size == (64, 64)


def test_the_command_takes_the_option_that_run_has(spot_model: Model, data: Path, tmp_path: Path) -> None:
    ended = run(str(spot_model()), "--data", str(data), "--tile", "16", "--rounds", "1", "-o", tmp_path / "r.json")
    assert ended.returncode == 0, ended.stderr
