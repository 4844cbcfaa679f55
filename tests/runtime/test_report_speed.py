"""Promises of the page about time: a real measurement of everything that can be measured here, and what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from irforge.bench import bench_models
from irforge.runtime.benchmark import Schedule
from irforge.runtime.counts import Counts
from irforge.runtime.endurance import endurance
from irforge.runtime.measure import Plan
from irforge.runtime.report import bounds, charts, speed
from irforge.runtime.report.page import render
from irforge.runtime.report.run_timing import run_timing
from irforge.runtime.report.schema import EngineFacts, Report, json_schema, parse_report, read_report, write_report
from irforge.runtime.report.show import report as show
from irforge.runtime.report.times import Reading, Readings, Window
from irforge.runtime.report.wording import milliseconds


@pytest.fixture(scope="module")
def measured(spot_model) -> Report:
    plan = Plan(Schedule(rounds=5, frames_per_round=4, warm_up=1), frames=1, sustained=1.5, batches=(1, 3))
    files = [spot_model("free.onnx"), spot_model("fixed.onnx", batch=1)]
    return bench_models(files, plan=lambda size: plan, command="irforge bench", watch=0.1)


def engine(target: str = "8.6", **fields: object) -> EngineFacts:
    values = {
        "file": "e.rtx.engine", "file_bytes": 9, "runtime": "TensorRT-RTX", "targets": [target], "kernels": 9,
        "macs": {"int8": 6_000_000_000}, "weight_bytes": {"int8": 4_000_000}, "bytes_moved": 60_000_000,
    } | fields  # fmt: skip
    return EngineFacts(**values)


def with_engines(report: Report, *engines: EngineFacts) -> Report:
    models = [report.models[0].model_copy(update={"engines": list(engines)}), *report.models[1:]]
    return report.model_copy(update={"models": models})


def test_everything_is_in_the_report_and_fits_the_schema(measured: Report, tmp_path: Path) -> None:
    free, fixed = measured.models
    for model in measured.models:
        assert model.start and model.start.opening > 0 and model.start.first_frame > 0
        assert model.memory and model.memory.before and model.memory.after and model.memory.end
        assert model.sustained and model.sustained.frame.n > 1
        assert model.latency and model.latency.frame_calls and len(model.latency.frame_calls) == 20
        assert set(model.trtexec) == {"10", "11"}
    assert [point.batch for point in free.batches] == [1, 3] and not free.batch_note
    assert not fixed.batches and fixed.batch_note == "its batch is fixed at 1"
    write_report(measured, tmp_path / "r.json")
    jsonschema.validate(json.loads((tmp_path / "r.json").read_text()), json.loads(json_schema()))
    assert read_report(tmp_path / "r.json") == measured


def test_a_report_of_schema_1_1_still_reads_and_renders(measured: Report) -> None:
    raw = json.loads(measured.model_dump_json())
    raw["schema_version"] = "1.1"
    for key in ("readings", "readings_note"):
        del raw[key]
    for model in raw["models"]:
        for key in ("start", "memory", "sustained", "batches", "batch_note", "trtexec"):
            del model[key]
        for key in ("by_round", "frame_calls"):
            del model["latency"][key]
    jsonschema.validate(raw, json.loads(json_schema()))
    page = render(parse_report(json.dumps(raw), "old"))
    assert "Not run: &#x27;irforge bench" in page and "Cold start" not in page


def test_the_page_shows_every_clock_as_figures_and_every_call(measured: Report) -> None:
    page = render(measured)
    latency = measured.models[0].latency
    assert latency is not None
    for clock in (latency.frame, latency.host):
        for value in (clock.min, clock.p50, clock.p90, clock.p99, clock.max, clock.jitter):
            assert milliseconds(value) in page
    for words in ("Cold start", "Minutes on end", "its batch is fixed at 1", "20 calls in their order", "of warm-up"):
        assert words in page, words
    assert "<script" not in page and "http:" not in page.replace("http-equiv", "")


def test_every_call_is_in_the_histogram_and_the_slowest_in_the_series() -> None:
    calls = [1.0] * 5000 + [80.0]
    bars = charts.histogram(calls, 1.0, 80.0, "fp32").count('class="fp32"')
    assert bars == 2, "one bar of the many, one of the single call"
    picture = charts.series(calls, 80.0, "fp32")
    assert picture.count("<rect") <= 242 and 'y="0.0"' in picture, "the slowest call reaches the top"


def test_equal_calls_make_one_bar() -> None:
    assert charts.histogram([2.0] * 9, 2.0, 2.0, "fp32").count('class="fp32"') == 1
    assert charts.windows([Window(start=0, n=9, p50=0, p99=0, max=0)], 0.0, "fp32")


def test_the_stages_fall_one_behind_the_other(measured: Report) -> None:
    latency = measured.models[0].latency
    assert latency is not None
    again = latency.model_copy(update={"rescore": latency.decode})
    assert [name for name, _ in charts.stages(again)] == ["prepare", "infer", "decode", "rescore"]
    picture = charts.stage_bar(again, sum(times.mean for _, times in charts.stages(again)))
    tops = [float(part.split('y="')[1].split('"')[0]) for part in picture.split("<rect")[2:]]
    assert tops == sorted(tops) and len(set(tops)) == 4


def test_the_fourth_clock_is_shown_or_its_absence_explained(measured: Report, tmp_path: Path, capsys) -> None:
    assert "nobody captured them" in render(measured)
    words = {"command": "irforge run m camera:0", "detector": "m", "policy": "latest"}
    live = Counts(read=9, dropped=1, published=8, seconds=1.0)
    live.ages.extend([0.0321] * 8)
    runs = [run_timing(live, sources=["camera 0"], **words), run_timing(Counts(), sources=["clip"], **words)]
    page = render(measured, runs)
    assert "32.1" in page and "1 of 9" in page and "clip: no frame was published" in page
    write_report(measured, tmp_path / "r.json")
    (tmp_path / "run.json").write_text(runs[0].model_dump_json())
    show([tmp_path / "r.json", tmp_path / "run.json"], None)
    assert "camera 0: age of a detection 32.1 ms at p50" in capsys.readouterr().out
    assert "32.1" in (tmp_path / "r.html").read_text()


def test_bounds_stand_beside_an_empty_column(measured: Report) -> None:
    report = with_engines(measured, engine())
    page = bounds.boards(report)
    # 12 GOP at 250 TOPS.
    assert "≥ 0.048" in page and "measured" in page and "Bounds, not measurements" in page
    assert bounds.boards(measured) == ""


def test_a_board_takes_its_own_plan_or_the_nearest_older_one(measured: Report) -> None:
    model = with_engines(measured, engine("7.5"), engine("8.9"), engine("8.6")).models[0]
    by_name = {board.known_as: board for board in bounds.BOARDS}

    def target(name: str) -> list[str] | None:
        plan = bounds.plan_for(model, by_name[name])
        return plan.targets if plan else None

    assert target("T4") == ["7.5"] and target("L4") == ["8.9"]
    assert target("AGX Orin") == ["8.6"] and target("H100 80GB HBM3") == ["8.9"]
    only = with_engines(measured, engine("8.9")).models[0]
    assert bounds.plan_for(only, by_name["T4"]) is None
    assert bounds.plan_for(with_engines(measured, engine(macs={})).models[0], by_name["L4"]) is None


@pytest.mark.parametrize(("gpu", "shown"), [("NVIDIA L4, SM 8.9", True), ("NVIDIA L40, SM 8.9", False)])
def test_a_measured_column_fills_only_on_that_board(measured: Report, gpu: str, shown: bool) -> None:
    model = measured.models[0]
    assert model.latency
    times = model.latency.host.model_copy(update={"p50": 0.777, "min": 0.1})
    update = {"device": "cuda:0", "latency": model.latency.model_copy(update={"gpu": times, "gpu_note": ""})}
    report = with_engines(measured, engine()).model_copy(
        update={"environment": measured.environment.model_copy(update={"gpu": gpu})}
    )
    models = [report.models[0].model_copy(update=update)]
    assert ("0.777" in bounds.boards(report.model_copy(update={"models": models}))) == shown


def test_a_jetson_s_time_stands_beside_the_bound_of_the_mode_it_ran_in(measured: Report) -> None:
    model = measured.models[0]
    assert model.latency
    times = model.latency.host.model_copy(update={"p50": 0.777, "min": 0.1})
    gpu = {"device": "cuda:0", "latency": model.latency.model_copy(update={"gpu": times, "gpu_note": ""})}
    report = with_engines(measured, engine("8.7"))
    here = report.environment.model_copy(update={"gpu": "NVIDIA Jetson Orin NX, SM 8.7"})
    ran = readings("GPU power", "W", 9.0).model_copy(update={"power_mode": "MAXN_SUPER (mode 0)"})
    update = {"environment": here, "models": [report.models[0].model_copy(update=gpu)], "readings": [ran]}
    page = bounds.boards(report.model_copy(update=update))
    rows = [row for row in page.split("<tr>") if "0.777" in row]
    assert len(rows) == 1 and "Orin NX 16GB (MAXN SUPER" in rows[0]
    # Two modes of one module: which of them it was nobody knows.
    assert "0.777" not in bounds.boards(report.model_copy(update=update | {"readings": []}))


def test_the_page_says_where_peaks_are_from_and_how_they_were_checked(measured: Report) -> None:
    page = bounds.boards(with_engines(measured, engine()))
    assert "could not be opened" in page and "DS-10662-001 v1.8" in page and "Derived: Dense is half of sparse" in page


def readings(name: str, unit: str, mean: float) -> Readings:
    return Readings(
        source="NVML, NVIDIA L4", during="sustained", samples=9, interval=0.5, cost_ms=0.4, cost_share=0.001,
        power_mode="", readings=[Reading(name=name, unit=unit, mean=mean, min=0, max=100)],
    )  # fmt: skip


def test_slowing_down_and_clocks_held_back_are_findings(measured: Report) -> None:
    model = measured.models[0]
    assert model.sustained
    hot = model.sustained.model_copy(update={"p50_drift": 0.31, "readings": [readings("held back by heat", "%", 40.0)]})
    texts = [finding.text for finding in endurance([model.model_copy(update={"sustained": hot})], [])]
    assert "slows down" in texts[0] and "p50 by 31 %" in texts[0]
    assert texts[1] == "NVML, NVIDIA L4 held its clocks back (sustained): by heat 40 % of the time."
    calm = model.sustained.model_copy(update={"p50_drift": 0.01, "readings": [readings("held back by heat", "%", 0.0)]})
    assert not endurance([model.model_copy(update={"sustained": calm})], [readings("GPU power", "W", 70.0)])


def test_power_becomes_energy_a_frame_and_its_cost_is_said(measured: Report) -> None:
    model = measured.models[0]
    assert model.sustained
    per_frame = 70.0 / model.sustained.frames_per_second
    kept = model.sustained.model_copy(update={"readings": [readings("GPU power", "W", 70.0)]})
    report = measured.model_copy(update={"models": [model.model_copy(update={"sustained": kept})]})
    page = speed.sustained(report)
    assert f"{per_frame:.3f}" in page and "0.10 % of a core" in page and "70.0" in page
