"""Companions at run time: found beside the deployable, checked, applied before the threshold; a stub judges."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.bench import bench_models
from irforge.contract import Companion
from irforge.errors import ArtifactError
from irforge.files import sha256_of_file
from irforge.rescoring import ROLE
from irforge.runtime.benchmark import Schedule
from irforge.runtime.counts import Counts
from irforge.runtime.detector import load
from irforge.runtime.measure import Plan
from irforge.runtime.rescoring import open_rescorer
from tests.box_model import box_frame, write_box_data, write_box_model

SIDE = 4
SPEC: dict[str, Any] = {"method": "clip", "classes": ["target"], "columns": [0], "alpha": [0.5], "crop_size": SIDE}


def write_companion(path: Path, factor: float = 1.0) -> Path:
    """New score = (old one + the crop's mean + class) / 2 * `factor`."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        stub (float[n, 3, {SIDE}, {SIDE}] crops, float[n] scores, int64[n] classes) => (float[n] rescored) {{
            axes = Constant<value = int64[3] {{1, 2, 3}}>()
            weights = Constant<value = float[1] {{{factor / 2:f}}}>()
            class = Cast<to = 1>(classes)
            means = ReduceMean<keepdims = 0>(crops, axes)
            whole = Sum(means, scores, class)
            rescored = Mul(whole, weights)
        }}"""
    )
    save_model(path, model)
    return path


def name_companion(primary: Path, **fields: Any) -> None:
    model = load_model(primary)
    contract = read_contract(model)
    path = primary.with_name("judge.onnx")
    given = {"role": ROLE, "path": path.name, "sha256": "", "input": "crops", "constants": SPEC} | fields
    if not given["sha256"] and path.is_file():
        given["sha256"] = sha256_of_file(path)
    embed_contract(model, contract.model_copy(update={"companions": [Companion(**given)]}))
    save_model(primary, model)


@pytest.fixture
def primary(tmp_path: Path) -> Path:
    write_companion(tmp_path / "judge.onnx")
    path = write_box_model(tmp_path / "detector.onnx")
    name_companion(path)
    return path


def test_detections_are_judged_again_before_the_threshold(primary: Path, tmp_path: Path) -> None:
    frame = box_frame((10, 12), (40, 30))
    with load(write_box_model(tmp_path / "plain.onnx"), threads=1, threshold=0) as plain:
        before = plain(frame)
    with load(primary, threads=1, threshold=0) as judged:
        after = judged(frame)
        times = judged.last_times
        batch = judged.run_batch([frame, box_frame((5, 5))])
    assert set(times.extra) == {"rescore"} and times.extra["rescore"] > 0
    with open_rescorer(read_contract(primary), primary, 1) as rescorer:
        expected = rescorer.rescore(frame, before.boxes, before.scores, before.classes)
    assert (np.abs(expected - before.scores)[before.scores > 0.05] > 0.01).all()
    np.testing.assert_allclose(after.scores, np.sort(expected)[::-1])
    assert batch[0].scores.tolist() == after.scores.tolist() and len(batch) == 2
    level = float(np.median(after.scores))
    with load(primary, threads=1, threshold=level) as held:
        assert held(frame).scores.tolist() == [score for score in after.scores.tolist() if score > level]


def test_a_score_below_the_threshold_may_rise_above_it(tmp_path: Path) -> None:
    write_companion(tmp_path / "judge.onnx", factor=1.6)
    path = write_box_model(tmp_path / "detector.onnx", bias=-4.4)
    frame = box_frame((10, 12), level=160)
    with load(path, threads=1) as plain:
        assert not len(plain(frame))
    name_companion(path, constants=SPEC | {"lower": 0.0})
    with load(path, threads=1) as judged:
        assert len(judged(frame))


def test_without_a_companion_nothing_is_opened_or_timed(tmp_path: Path) -> None:
    path = write_box_model(tmp_path / "plain.onnx")
    assert open_rescorer(read_contract(path), path) is None
    with load(path, threads=1) as detector:
        detector(box_frame((10, 12)))
        assert not detector.last_times.extra and "re-scored" not in repr(detector)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"path": "none.onnx"}, "does not exist"),
        ({"path": "../judge.onnx"}, "outside the deployable's folder"),
        ({"path": "/judge.onnx"}, "outside the deployable's folder"),
        ({"sha256": "0" * 64}, "is not the companion that the contract names"),
        ({"role": "caption"}, "role 'caption'"),
        ({"constants": {"method": "clip"}}, "constants of companion 'judge.onnx' are invalid"),
        ({"constants": SPEC | {"classes": ["cat"]}}, "for the classes cat, the detector has target"),
        ({"constants": SPEC | {"crop_size": None, "stride": 32}}, "takes crops, scores, classes, not"),
    ],
)
def test_a_companion_that_cannot_be_trusted_is_refused(primary: Path, fields: dict[str, Any], words: str) -> None:
    name_companion(primary, **fields)
    with pytest.raises(ArtifactError, match=words):
        load(primary, threads=1)


def test_scores_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    write_companion(tmp_path / "judge.onnx", factor=6.6e38)
    path = write_box_model(tmp_path / "detector.onnx")
    name_companion(path)
    with load(path, threads=1) as detector, pytest.raises(ArtifactError, match="not finite"):
        detector(box_frame((10, 12)))


def test_a_report_judges_each_model_by_its_own_companion(primary: Path, tmp_path: Path) -> None:
    folder = write_box_data(tmp_path / "set", {"a": [(10, 12)], "b": [(30, 40), (8, 50)]})
    plain = write_box_model(tmp_path / "plain.onnx")
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(primary.read_bytes())
    plan = Plan(Schedule(rounds=1, frames_per_round=1, warm_up=0))
    report = bench_models([primary, twin, plain], plan=lambda size: plan, data=str(folder), command="here")
    judged, same, unlike = report.models
    assert same.parity.boxes.max_score == 0 and same.parity.boxes.pairs
    # Half of each score is the crop's mean now.
    assert unlike.parity.boxes.max_score > 0.1 and unlike.parity.boxes.max_box == 0
    assert judged.accuracy.targets == 3
    assert judged.file_bytes == primary.stat().st_size + (tmp_path / "judge.onnx").stat().st_size
    assert unlike.file_bytes == plain.stat().st_size
    assert judged.latency.rescore.n == 1 and unlike.latency.rescore is None


def test_a_run_tells_what_the_companion_took(primary: Path, tmp_path: Path) -> None:
    with load(primary, threads=1) as judged, load(write_box_model(tmp_path / "plain.onnx"), threads=1) as plain:
        times = []
        for detector in (judged, plain):
            detector(box_frame((10, 12)))
            times.append(detector.last_times)
    judged_line, plain_line = (Counts(times=deque([spent])).lines()[0] for spent in times)
    assert ", rescore " in judged_line and "rescore" not in plain_line
