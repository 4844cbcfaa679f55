"""Promises of `irforge report A B`: what is compared with what, what counts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from irforge.bench import bench_models
from irforge.errors import UsageError
from irforge.runtime.benchmark import Schedule
from irforge.runtime.differences import Change, Pair, compare_reports
from irforge.runtime.measure import Plan
from irforge.runtime.report.difference_view import print_differences, render_differences, summary
from irforge.runtime.report.figures import MaskAccuracy, MaskParity, SizeCount, TargetChange
from irforge.runtime.report.schema import EngineFacts, Model, Report, write_report
from irforge.runtime.report.show import report as show
from irforge.runtime.report.times import RoundMedians

NAMES = ("before.json", "after.json")


@pytest.fixture(scope="module")
def measured(spot_model, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A real report of two files on three frames, whose rounds are then made steady: a busy machine is no subject."""
    folder = tmp_path_factory.mktemp("set")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(3):
        frame = np.full((64, 64), 90, np.uint8)
        frame[30, 10 + 10 * i : 13 + 10 * i] = (150, 200, 160)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), frame)
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), np.where(frame > 128, 255, 0).astype(np.uint8))
    files = [spot_model("a.onnx"), spot_model("b.onnx")]
    plan = Plan(Schedule(rounds=6, frames_per_round=2, warm_up=1))
    report = bench_models(files, plan=lambda size: plan, data=str(folder), command="irforge bench", watch=0)
    return report.model_copy(update={"models": [steady(model, 1.0) for model in report.models]})


def steady(model: Model, factor: float) -> Model:
    """The model with every time of its clocks replaced by about 10 ms times `factor`."""
    assert model.latency
    rounds = [factor * (10 + 0.02 * k) for k in range(model.latency.rounds)]
    clock = model.latency.frame.model_copy(
        update={"min": rounds[0], "mean": rounds[2], "p50": rounds[2], "p90": rounds[4], "p99": rounds[5],
                "max": rounds[5], "jitter": rounds[5] - rounds[2]}
    )  # fmt: skip
    latency = model.latency.model_copy(
        update={"frame": clock, "host": clock, "by_round": RoundMedians(frame=rounds, host=rounds)}
    )
    return model.model_copy(update={"latency": latency})


def edited(report: Report, edit: Callable[[int, Model], dict[str, Any]], **fields: Any) -> Report:
    models = [model.model_copy(update=edit(k, model)) for k, model in enumerate(report.models)]
    return report.model_copy(update={"models": models, **fields})


def change(pair: Pair, name: str) -> Change:
    return next(c for c in pair.changes if c.name == name)


def test_a_report_against_itself_shows_no_change(measured: Report) -> None:
    found = compare_reports(measured, measured)
    assert [pair.before.name for pair in found.pairs] == ["a.onnx", "b.onnx"]
    assert all(c.before == c.after and c.verdict != "more" for pair in found.pairs for c in pair.changes)
    assert not found.machines and not found.software and not found.unpaired
    texts = [finding.text for finding in summary(found)]
    assert "Nothing that was measured changed by more than noise." in texts


def test_a_slower_file_is_told_and_an_unchanged_one_beside_it_is_not(measured: Report) -> None:
    after = edited(measured, lambda k, m: {"sha256": "cd" * 32, "latency": steady(m, 1.4).latency} if k == 1 else {})
    one, other = compare_reports(measured, after).pairs
    assert change(one, "frame p50").verdict == "noise" and one.same_file
    assert change(other, "frame p50").verdict == change(other, "host p50").verdict == "more" and not other.same_file
    assert change(other, "frame p99").verdict == "unknown"
    caution = next(f for f in summary(compare_reports(measured, after)) if f.level == "caution")
    assert caution.text.startswith("Worse by more than noise: FP32 b, 64 × 64 (frame p50 1.40× slower")


def test_what_an_unchanged_file_shifts_by_is_the_machines_and_excuses_as_much(measured: Report) -> None:
    def shifted(own: float) -> Report:
        return edited(
            measured,
            lambda k, m: {"latency": steady(m, own if k else 1.25).latency} | ({"sha256": "cd" * 32} if k else {}),
        )

    found = compare_reports(measured, shifted(1.2))
    assert found.floor == pytest.approx(0.25)
    assert change(found.pairs[1], "host p50").verdict == "noise"
    assert change(found.pairs[0], "host p50").verdict == "more", "the unchanged file itself did change its time"
    assert change(compare_reports(measured, shifted(1.5)).pairs[1], "host p50").verdict == "more"


def test_another_machine_is_a_loud_caution_and_other_packages_a_note(measured: Report) -> None:
    here = measured.environment
    packages = here.packages | {"onnxruntime": "0.0.1"}
    other = measured.model_copy(
        update={"environment": here.model_copy(update={"cpu": "another CPU", "gpu": "T4", "packages": packages})}
    )
    found = compare_reports(measured, other)
    first = summary(found)[0]
    assert first.level == "bad" and "two machines" in first.text and "another CPU" in first.text
    assert any("onnxruntime" in f.text and "0.0.1" in f.text for f in summary(found) if f.level == "note")
    console = Console(width=100, record=True, file=StringIO())
    print_differences(found, NAMES, console)
    assert console.export_text().lstrip().startswith("✕ These are two machines")


def test_models_measured_otherwise_are_a_caution(measured: Report) -> None:
    after = edited(measured, lambda k, m: {"threshold": 0.4} if k == 0 else {})
    (caution,) = [f for f in summary(compare_reports(measured, after)) if f.level == "caution"]
    assert "threshold 0.5 and 0.4" in caution.text and "a, 64 × 64" in caution.text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "OTHER", "data .* and OTHER"),
        ("split", "val", "split .* and val"),
        ("frames", 2, "frames 3 and 2"),
        ("targets", 9, "targets 3 and 9"),
    ],
)
def test_other_data_are_refused_in_one_line(measured: Report, field: str, value: object, message: str) -> None:
    other = measured.model_copy(update={"data": measured.data.model_copy(update={field: value})})
    with pytest.raises(UsageError, match=message) as caught:
        compare_reports(measured, other)
    assert "\n" not in caught.value.line


def test_another_kind_of_output_is_refused(measured: Report) -> None:
    with pytest.raises(UsageError, match="one report is of mask and the other of boxes"):
        compare_reports(measured, measured.model_copy(update={"output": "boxes"}))


def test_names_pair_first_then_the_only_one_of_a_precision_and_size(measured: Report) -> None:
    a, b = measured.models
    renamed = measured.model_copy(update={"models": [a, b.model_copy(update={"name": "new.onnx"})]})
    found = compare_reports(measured, renamed)
    assert [(p.before.name, p.after.name) for p in found.pairs] == [("a.onnx", "a.onnx"), ("b.onnx", "new.onnx")]
    assert any("name b.onnx and new.onnx" in caution for caution in found.pairs[1].cautions)
    both = measured.model_copy(
        update={"models": [m.model_copy(update={"name": f"new.{m.name}"}) for m in measured.models]}
    )
    with pytest.raises(UsageError, match="no model in common"):
        compare_reports(measured, both)
    found = compare_reports(measured, measured.model_copy(update={"models": [a]}))
    assert found.unpaired == ("b.onnx",)


def accuracy(found: int) -> MaskAccuracy:
    return MaskAccuracy(
        frames=3, targets=300, found=found, pd=found / 300, pd_interval=None, iou=0.7, niou=0.7, fa=1e-5,
        false_pixels_per_100_frames=1,
    )  # fmt: skip


def lost(rows: range, gained: range = range(0)) -> MaskParity:
    changes = [
        TargetChange(
            kind=kind, frame="f", row=row, column=1, area=4, size_class="up to 9 px", reference_peak=1, candidate_peak=0
        )
        for kind, part in (("lost", rows), ("gained", gained))
        for row in part
    ]
    return MaskParity(
        reference="a.onnx", frames=3, targets=300, outputs=[], iou_points=0, niou_points=0, pd_points=0,
        false_pixels_per_100_frames=0, changes=changes, checks=[],
        by_size=[SizeCount(size_class="up to 9 px", targets=300, lost=len(rows), gained=len(gained))],
    )  # fmt: skip


def test_targets_are_paired_through_the_reference_that_both_were_held_to(measured: Report) -> None:
    # The first loses targets 0..9, the second 8..29: only the first finds 20 of them, only the second 8.
    before = edited(measured, lambda k, m: {"parity": lost(range(10)), "accuracy": accuracy(290)} if k else {})
    after = edited(measured, lambda k, m: {"parity": lost(range(8, 30)), "accuracy": accuracy(278)} if k else {})
    pd = change(compare_reports(before, after).pairs[1], "Pd")
    assert "20 lost, 8 gained" in pd.why and pd.verdict == "noise"
    worse = edited(measured, lambda k, m: {"parity": lost(range(60)), "accuracy": accuracy(240)} if k else {})
    assert change(compare_reports(before, worse).pairs[1], "Pd").verdict == "more"


def test_without_a_common_reference_the_interval_of_two_rates_decides(measured: Report) -> None:
    before = edited(measured, lambda k, m: {"parity": lost(range(10)), "accuracy": accuracy(290)} if k else {})
    other = edited(
        measured,
        lambda k, m: {"parity": lost(range(22)), "accuracy": accuracy(278)} if k else {"sha256": "ef" * 32},
    )
    pd = change(compare_reports(before, other).pairs[1], "Pd")
    assert "as if the frames were others" in pd.why and pd.verdict == "noise"


def test_kernels_and_bytes_are_counted_and_only_of_the_same_gpus(measured: Report) -> None:
    def plan(kernels: int, target: str = "8.9") -> dict[str, Any]:
        facts = EngineFacts(
            file="e", file_bytes=1, runtime="TensorRT-RTX", targets=[target], kernels=kernels, bytes_moved=10**6
        )
        return {"engines": [facts]}

    before, after = (edited(measured, lambda k, m, n=n: plan(n)) for n in (640, 150))
    kernels = change(compare_reports(before, after).pairs[0], "kernels")
    assert (kernels.before, kernels.after, kernels.verdict) == (640, 150, "counted")
    other = edited(measured, lambda k, m: plan(150, "7.5"))
    assert not [c for c in compare_reports(before, other).pairs[0].changes if c.name == "kernels"]


def test_a_report_before_schema_1_2_says_why_it_cannot_judge(measured: Report) -> None:
    def older(k: int, m: Model) -> dict[str, Any]:
        assert m.latency
        return {"latency": m.latency.model_copy(update={"by_round": None, "frame_calls": None})}

    found = compare_reports(edited(measured, older), measured)
    p50 = change(found.pairs[0], "frame p50")
    assert p50.verdict == "unknown" and "schema 1.2" in p50.why


def test_the_page_shows_each_change_with_what_it_rests_on(measured: Report) -> None:
    after = edited(measured, lambda k, m: {"latency": steady(m, 2.0).latency, "sha256": "cd" * 32})
    page = render_differences(compare_reports(measured, after), measured, after, NAMES)
    for words in ("2.00× slower", "more than noise", "over the rounds", "noise unknown", "counted", *NAMES):
        assert words in page, words
    assert "<script" not in page


def test_the_command_compares_two_files_and_refuses_more(measured: Report, tmp_path: Path, capsys) -> None:
    paths = [tmp_path / name for name in ("x.json", "y.json", "z.json")]
    for path in paths:
        write_report(measured, path)
    show(paths[:2], None)
    shown = capsys.readouterr().out
    assert (tmp_path / "x.y.html").is_file() and "frame p50" in shown and shown.splitlines()[-1].endswith("x.y.html")
    with pytest.raises(UsageError, match="3 reports"):
        show(paths, None)
