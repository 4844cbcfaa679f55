"""Promises of `irforge bench` for detectors that give boxes: as for masks, with no word about it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.bench import bench_models
from irforge.datasets import BoxTruth, open_dataset
from irforge.errors import EnvironmentFault, UsageError
from irforge.runtime.benchmark import Schedule
from irforge.runtime.measure import Entry, Plan, measure
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import Report, read_report, write_report
from tests.box_model import write_box_data, write_box_model
from tests.test_bench import run

QUICK = Plan(Schedule(rounds=1, frames_per_round=1, warm_up=0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_box_data(tmp_path / "set", {"a": [(10, 20), (40, 30)], "b": [(20, 20)], "c": [], "d": [(5, 50)]})


def bench(models: list[Path], data: Path) -> Report:
    return bench_models(models, plan=lambda size: QUICK, data=str(data), command="here")


def test_boxes_are_measured_and_compared_as_masks_are(tmp_path: Path, data: Path) -> None:
    right = write_box_model(tmp_path / "peaks.onnx")
    half = write_box_model(tmp_path / "peaks.fp16.onnx", precision="fp16", shift=0.25)
    blind = write_box_model(tmp_path / "peaks.int8.onnx", precision="int8", bias=-12.0)
    report = bench([right, half, blind], data)
    assert report.output == "boxes" and report.data.targets == 4
    first, second, third = report.models
    assert first.accuracy.iou50.f1 == first.accuracy.pd == 1 and first.accuracy.ap50 == pytest.approx(1)
    assert first.accuracy.alarms.frames == 1 and first.accuracy.alarms.alarms == 0
    assert second.parity.boxes.max_box == pytest.approx(0.25, abs=1e-5) and second.parity.passed
    assert second.parity.centre_error_p95 == pytest.approx(0.25 * 2**0.5, abs=1e-3)
    assert third.accuracy.found == 0 and [c.kind for c in third.parity.changes] == ["lost"] * 4
    # Lower scores in the same order: AP, which is over all of them, loses nothing.
    missed = {check.name for check in third.parity.checks if not check.passed}
    assert missed == {"F1 loss", "more centre error at p95"}
    assert all(m.latency.frame.p50 > 0 for m in report.models)
    write_report(report, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == report and "F1 at IoU 0.3" in render(report)


def test_a_plain_export_beside_the_rewritten_one_keeps_its_own_name(tmp_path: Path, data: Path) -> None:
    models = [write_box_model(tmp_path / f"peaks{end}.onnx") for end in ("", ".plain")]
    report = bench([*models, write_box_model(tmp_path / "peaks.int8.onnx", precision="int8")], data)
    assert [m.variant for m in report.models] == ["peaks", "peaks.plain", ""]
    assert report.models[1].parity.passed and report.models[1].parity.boxes.max_box == 0


def test_frames_without_truth_compare_outputs_only(tmp_path: Path, data: Path) -> None:
    models = [write_box_model(tmp_path / "a.onnx"), write_box_model(tmp_path / "b.onnx", precision="int8")]
    report = bench(models, data / "images")
    assert report.models[0].accuracy is None and report.data.targets is None
    assert report.models[1].parity.boxes.pairs == 4 and "F1 at IoU 0.3" not in render(report)


def test_masks_and_boxes_are_not_mixed_in_a_report(tmp_path: Path, data: Path, spot_model) -> None:
    with pytest.raises(UsageError, match=r"'peaks.onnx' gives boxes and 'spot.onnx' a mask"):
        bench([write_box_model(tmp_path / "peaks.onnx"), spot_model(size=(96, 128))], data)


def test_truth_of_other_classes_is_refused(tmp_path: Path, data: Path) -> None:
    path = write_box_model(tmp_path / "peaks.onnx")
    model = load_model(path)
    contract = read_contract(model)
    two = contract.output.model_copy(update={"classes": ["bird", "drone"]})
    embed_contract(model, contract.model_copy(update={"output": two}))
    save_model(path, model)
    with pytest.raises(UsageError, match=r"knows the classes bird, drone, 'set' holds target"):
        bench([path], data)


def test_one_class_may_go_by_any_name(tmp_path: Path, data: Path) -> None:
    from irforge.runtime.backends import open_session

    path = write_box_model(tmp_path / "peaks.onnx")
    samples = [replace(sample, box_truth=sample.boxes()) for sample in open_dataset(str(data))]
    assert isinstance(samples[0].box_truth, BoxTruth)
    drones = replace(open_dataset(str(data)), samples=tuple(samples), classes=("drone",))
    entry = Entry(path.name, path, read_contract(path), lambda: open_session(path))
    report = measure([entry], drones, plan=lambda size: QUICK, threads=1, command="")
    assert report.models[0].accuracy.pd == 1


def test_a_missing_package_is_named_before_anything_is_timed(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    monkeypatch.setattr("irforge.runtime.measure.measure_latency", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(EnvironmentFault, match="faster-coco-eval"):
        bench([write_box_model(tmp_path / "peaks.onnx")], data)


def test_check_fails_for_boxes_as_for_masks(tmp_path: Path, data: Path) -> None:
    good = write_box_model(tmp_path / "peaks.onnx")
    blind = write_box_model(tmp_path / "blind.onnx", precision="int8", bias=-12.0)
    done = run(good, blind, "--data", data, "--rounds", "1", "-o", tmp_path / "r.json", "--check")
    assert done.returncode == 6, done.stderr
    assert "'blind.onnx' against 'peaks.onnx': F1 loss 100 points, limit 1 (1 more limit missed)" in done.stderr
    assert "peaks 64 × 64" in done.stdout and read_report(tmp_path / "r.json").output == "boxes"
