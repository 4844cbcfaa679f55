"""Promises of `irforge bench`: what is compared with what, on which frames, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.bench import bench_models, sample_frames
from irforge.contract import Contract, PadToMultiple, Range, Squash
from irforge.errors import UsageError
from irforge.files import sha256_of_file
from irforge.runtime.benchmark import Schedule
from irforge.runtime.measure import Plan, at_size, protocol_words, under_protocol
from irforge.runtime.report.schema import Report, read_report

QUICK = Plan(Schedule(rounds=1, frames_per_round=1, warm_up=0))


@pytest.fixture
def data(tmp_path: Path, spot_frame: Callable[..., np.ndarray]) -> Path:
    """Three frames with the truth that a spot model finds exactly."""
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for i in range(3):
        frame = spot_frame(x=10 + 10 * i)
        cv2.imwrite(str(tmp_path / "set" / "images" / f"{i}.png"), frame)
        cv2.imwrite(str(tmp_path / "set" / "masks" / f"{i}.png"), np.where(frame > 128, 255, 0).astype(np.uint8))
    return tmp_path / "set"


def as_precision(path: Path, precision: str, **provenance: object) -> Path:
    """A copy of a model that says that it is of another precision."""
    model = load_model(path)
    contract = read_contract(model).with_provenance(precision=precision, **provenance)
    embed_contract(model, contract)
    copy = path.with_name(f"{path.stem}.{precision}.onnx")
    save_model(copy, model)
    return copy


def bench(models: list[Path], data: Path | str, **settings: object) -> Report:
    return bench_models(models, plan=lambda size: QUICK, data=str(data), command="here", **settings)


def test_models_are_compared_within_their_size_and_headline_first(spot_model, data: Path) -> None:
    small, large = spot_model("a.onnx"), spot_model("b.onnx", size=(96, 128))
    report = bench([small, as_precision(small, "int8"), large, as_precision(large, "fp16")], data, protocol="native")
    assert report.sizes == [(96, 128), (64, 64)]
    assert [m.parity.reference if m.parity else None for m in report.models] == [None, "b.onnx", None, "a.onnx"]
    assert report.references == {"a.onnx", "b.onnx"}
    assert all(m.accuracy.iou == m.accuracy.pd == 1 and m.accuracy.frames == 3 for m in report.models)
    assert all(m.parity.passed for m in report.models if m.parity)
    assert report.data.targets == 3 and report.data.frames == report.data.frames_in_split == 3
    assert report.models[0].sha256 == sha256_of_file(large)


def test_each_precision_is_held_to_its_own_limits(spot_model, data: Path) -> None:
    model = spot_model()
    report = bench([model, as_precision(model, "int8"), as_precision(model, "fp16")], data)
    names = [[check.name for check in m.parity.checks] for m in report.models if m.parity]
    assert names == [["not finite", "IoU loss", "Pd loss", "more false pixels"], ["not finite", "IoU loss"]]


def test_a_limit_on_frames_is_stated_as_n(spot_model, data: Path) -> None:
    report = bench_models([spot_model()], plan=lambda size: Plan(QUICK.schedule, 2), data=str(data), command="")
    assert (report.data.frames, report.data.frames_in_split, report.data.targets) == (2, 3, 2)


def test_without_data_the_frames_of_the_package_are_used(spot_model) -> None:
    dataset = sample_frames()
    assert len(dataset) == 24 and dataset.has_masks and dataset.licence.startswith("CC0")
    report = bench_models([spot_model()], plan=lambda size: Plan(QUICK.schedule, 1), command="")
    assert report.data.name == "irforge samples" and report.models[0].protocol.startswith("squash")


def test_models_that_want_different_frames_are_not_compared(spot_model, data: Path) -> None:
    squash = spot_model("a.onnx")
    padded = spot_model("b.onnx", fit=PadToMultiple(multiple=16))
    with pytest.raises(UsageError, match=r"'a.onnx' and 'b.onnx' cannot be compared: fit is"):
        bench([squash, padded], data)
    assert len(bench([squash, padded], data, protocol="squash").models) == 2


def test_names_sizes_and_protocols_that_do_not_fit_are_one_line(spot_model, data: Path) -> None:
    model = spot_model()
    with pytest.raises(UsageError, match="the same name"):
        bench([model, model], data)
    with pytest.raises(UsageError, match="no model runs at 32x32"):
        bench([model], data, sizes=[(32, 32)])
    with pytest.raises(UsageError, match="no protocol 'stretch'"):
        bench([model], data, protocol="stretch")


def test_a_dynamic_model_is_measured_at_the_sizes_asked_for() -> None:
    side = Range(min=32, opt=64, max=128, multiple=16)
    contract = _contract(height=side, width=side, fit=PadToMultiple(multiple=16))
    assert at_size(contract, None).input.size == (64, 64)
    assert at_size(contract, (96, 128)).input.height == 96
    fixed = _contract(height=64, width=64, fit=Squash())
    assert at_size(fixed, (96, 128)) == fixed


def test_protocols_change_the_fit_and_nothing_else() -> None:
    contract = _contract(height=64, width=64, fit=Squash())
    native = under_protocol(contract, "native")
    assert native.input.fit.kind == "pad-to-multiple"
    assert under_protocol(native, "squash") == contract == under_protocol(contract, None)
    assert "resized to 64 × 64, antialiased" in protocol_words(contract.input)
    assert "padded to 64 × 64" in protocol_words(native.input)


def _contract(**fields: object) -> Contract:
    from irforge.contract import InputSpec, Normalization, OutputSpec, Provenance, TensorSpec

    tensor = TensorSpec(name="mask", dtype="float32", shape=["N", 1, "H", "W"], meaning="probability")
    return Contract(
        input=InputSpec(normalization=Normalization(mean=0, std=1), **fields),
        output=OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[tensor]),
        provenance=Provenance(detector="test"),
    )


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "irforge.cli", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_writes_a_report_that_holds_the_command(spot_model, data: Path, tmp_path: Path) -> None:
    model, out = spot_model(), tmp_path / "r.json"
    arguments = [model, as_precision(model, "int8"), "--data", data, "--rounds", "2", "--frames-per-round", "1"]
    done = run(*arguments, "-o", out, "--check")
    assert done.returncode == 0, done.stderr
    report = read_report(out)
    assert report.command.startswith(f"irforge bench {model} ") and report.command.endswith("--check")
    assert report.models[0].latency.rounds == 2
    assert "spot 64 × 64" in done.stdout and str(out) in done.stdout


def test_minutes_and_batches_are_asked_for_by_option(spot_model, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    options = ["--rounds", "2", "--frames-per-round", "1", "--sustained", "1", "--batches", "2,1", "--watch", "0"]
    done = run(spot_model(), spot_model("fixed.onnx", batch=1), "--data", data, *options, "-o", out)
    assert done.returncode == 0, done.stderr
    report = read_report(out)
    free, fixed = report.models
    assert [point.batch for point in free.batches] == [1, 2] and free.sustained and free.sustained.seconds >= 1
    assert fixed.sustained and fixed.batch_note == "its batch is fixed at 1"
    assert not report.readings and "nobody asked" in report.readings_note
    done = run(spot_model(), "--data", data, "--batches", "1,two", "-o", tmp_path / "x.json")
    assert done.returncode == 2 and "'1,two' are no batches" in done.stderr


def test_the_first_model_bears_the_loading_of_its_library_and_says_so(spot_model, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    model = spot_model()
    options = ["--rounds", "1", "--frames-per-round", "1", "-o", out]
    assert run(model, as_precision(model, "int8"), "--data", data, *options).returncode == 0
    first, second = (m.start for m in read_report(out).models)
    assert first.loaded == ["onnxruntime"] and second.loaded == []
    assert first.opening > second.opening


def test_check_fails_with_its_own_code_and_the_report_is_still_there(spot_model, data: Path, tmp_path: Path) -> None:
    good, out = spot_model(), tmp_path / "r.json"
    blind = load_model(good)
    next(node for node in blind.graph.node if node.op_type == "Sigmoid").op_type = "HardSigmoid"
    next(node for node in blind.graph.node if node.op_type == "HardSigmoid").attribute.extend(_never())
    embed_contract(blind, read_contract(good).with_provenance(precision="int8"))
    save_model(bad := good.with_name("blind.onnx"), blind)
    done = run(good, bad, "--data", data, "--rounds", "1", "-o", out, "--check")
    assert done.returncode == 6
    assert "'blind.onnx' against 'spot.onnx': IoU loss 100 points, limit 0.5" in done.stderr
    assert done.stderr.count("\n") == 1
    lost = json.loads(out.read_text())["models"][1]["parity"]["changes"]
    assert [change["kind"] for change in lost] == ["lost"] * 3


def _never():
    from onnx import helper

    return [helper.make_attribute("alpha", 0.0), helper.make_attribute("beta", 0.25)]


def test_check_without_truth_is_refused(spot_model, data: Path, tmp_path: Path) -> None:
    model = spot_model()
    frames = ["--data", data / "images", "--rounds", "1"]
    done = run(model, as_precision(model, "int8"), *frames, "-o", tmp_path / "r.json", "--check")
    assert done.returncode == 2 and "no truth" in done.stderr
