"""An adopted model passes through every stage as a deployable of irforge's own does, with no word about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import irforge
from irforge.artifact import read_contract
from irforge.bench import bench_models
from irforge.calib.collect import collect_ranges
from irforge.calib.half import half_model
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import save_ranges
from irforge.export.adopt.adopt import adopt
from irforge.lint import lint
from irforge.runtime.benchmark import Schedule
from irforge.runtime.measure import Plan
from irforge.runtime.report.page import render
from tests.box_model import box_frame, write_box_data

SPOTS = [(11, 19), (43, 27)]


@pytest.fixture(scope="module")
def precisions(spotter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The spotter adopted, and what `half` and `quantize` make of it."""
    folder = tmp_path_factory.mktemp("stages")
    paths = {name: folder / f"spotter{end}.onnx" for name, end in (("fp32", ""), ("fp16", ".fp16"), ("int8", ".int8"))}
    adopt(spotter(size=(64, 64)), paths["fp32"], normalize="unit", fit="squash", threshold=0.5)
    (folder / "frames").mkdir()
    for index, spots in enumerate([SPOTS, [(30, 30)], []]):
        cv2.imwrite(str(folder / "frames" / f"f{index}.png"), box_frame(*spots))
    save_ranges(folder / "ranges.json", collect_ranges(paths["fp32"], str(folder / "frames"), threads=1))
    half_model(paths["fp32"], paths["fp16"], ranges_path=folder / "ranges.json")
    quantize_model(paths["fp32"], paths["int8"], folder / "ranges.json")
    return paths


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_finds_the_same_targets_in_every_precision(precisions: dict[str, Path], precision: str) -> None:
    with irforge.load(precisions[precision], threads=1) as detector:
        found = detector(box_frame(*SPOTS))
    # The spots' brightest pixels lie in the cells from (8, 16) and (40, 24) on.
    expected = np.array([[9, 17, 15, 23], [41, 25, 47, 31]], np.float32)
    order = np.argsort(found.boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order], expected, atol=0.01)
    np.testing.assert_allclose(found.scores, 0.985, atol=0.01)
    assert found.classes.tolist() == [0, 0]
    assert read_contract(precisions[precision]).provenance.precision == precision


def test_the_gray_frame_enters_a_stem_of_one_channel(precisions: dict[str, Path]) -> None:
    """Three equal channels and their scaling are taken into the first convolution, which is then a third as large."""
    from irforge.artifact import load_model
    from irforge.graph import Graph

    graph = Graph(load_model(precisions["fp32"]))
    stem = graph.of_type("Conv")[0]
    weight = graph.array(stem.input[1])
    assert weight is not None and weight.shape == (16, 1, 1, 1)
    assert {finding.level for finding in lint(graph.model)} <= {"warning"}


def test_frames_go_through_together(precisions: dict[str, Path]) -> None:
    """The batch is as free as it was."""
    with irforge.load(precisions["fp32"], threads=1) as detector:
        frames = [box_frame(*SPOTS), box_frame()]
        both, none = detector.run_batch(frames)
        assert len(both) == 2 and len(none) == 0


def test_it_is_measured_and_reported(precisions: dict[str, Path], tmp_path: Path) -> None:
    data = write_box_data(tmp_path / "set", {"a": SPOTS, "b": [(20, 20)], "c": []})
    plan = Plan(Schedule(rounds=1, frames_per_round=1, warm_up=0))
    report = bench_models(list(precisions.values()), plan=lambda size: plan, data=str(data), command="here")
    assert [model.accuracy.pd for model in report.models] == [1, 1, 1]
    assert all(model.parity is None or model.parity.passed for model in report.models[:2])
    assert "spotter" in render(report)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_passes_nvidias_compiler(precisions: dict[str, Path], precision: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    from irforge.runtime.engines import compile_gate

    assert compile_gate(precisions[precision], ("8.9",)).proofs
