"""Frames in, boxes out: the fixed-shape decode is the published evaluation, and so is that of the exported graph."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from irforge.artifact import save_model
from irforge.calib.half import half_model
from irforge.contract import Contract, InputSpec, Letterbox, Normalization, Provenance
from irforge.errors import ExportError
from irforge.export.convert import contract_for, onnx_from_torch
from irforge.export.verify import largest_difference
from irforge.graph import Graph
from irforge.ops import count_custom_ops
from irforge.train.checkpoint import load_deployable, save_checkpoint
from irforge.train.detectors.base import output_of
from irforge.train.detectors.registry import find_detector
from irforge.train.detectors.twostage.boxes import DETECTION_WEIGHTS, clip_boxes, decode_boxes
from irforge.train.detectors.twostage.deploy import detect, select
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.rpn import survivors, training_proposals

SIZE = (64, 96)
Make = Callable[..., TwoStage]
Row = tuple[float, int, list[float]]


def published(boxes: torch.Tensor, scores: torch.Tensor, deltas: torch.Tensor, least: float) -> list[Row]:
    """(score, class, box) of one frame, class by class as detectron2 goes."""
    found: list[Row] = []
    for kind in range(scores.shape[1]):
        box = clip_boxes(decode_boxes(deltas[:, kind], boxes, DETECTION_WEIGHTS), *SIZE)
        chosen = torch.nonzero(scores[:, kind] > least).squeeze(1)
        chosen = chosen[scores[chosen, kind].argsort(descending=True)]
        for index in chosen[survivors(box[chosen], 0.5, 1000)].tolist():
            found.append((float(scores[index, kind]), kind, box[index].tolist()))
    return sorted(found, key=lambda row: -row[0])[:100]


@pytest.fixture(scope="module")
def crowd() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """60 proposals of two frames with three classes; 180 pairs are more than are kept."""
    rng = np.random.default_rng(2)
    low = rng.uniform(0, 50, (2, 60, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 40, (2, 60, 2))], axis=2)
    scores = rng.dirichlet([0.6] * 4, (2, 60))[..., :3]
    arrays = (boxes, scores, rng.normal(0, 0.5, (2, 60, 3, 4)))
    return tuple(torch.from_numpy(array.astype(np.float32)) for array in arrays)  # type: ignore[return-value]


@pytest.mark.parametrize("least", [0.0, 0.05, 0.5])
def test_selection_is_that_of_the_published_evaluation(
    crowd: tuple[torch.Tensor, torch.Tensor, torch.Tensor], least: float
) -> None:
    proposals, probabilities, deltas = crowd
    boxes, scores, classes = select(proposals, probabilities, deltas, SIZE, least)
    assert boxes.shape == (2, 100, 4) and scores.shape == classes.shape == (2, 100)
    for frame in (0, 1):
        expected = published(proposals[frame], probabilities[frame], deltas[frame], least)
        n = len(expected)
        assert n > 10
        assert scores[frame, :n].tolist() == pytest.approx([row[0] for row in expected], rel=1e-5)
        assert classes[frame, :n].tolist() == [row[1] for row in expected]
        assert torch.allclose(boxes[frame, :n], torch.tensor([row[2] for row in expected]), atol=1e-3)
        assert not scores[frame, n:].any() and not boxes[frame, n:].any() and not classes[frame, n:].any()


def test_fewer_pairs_than_detections_leave_empty_slots() -> None:
    boxes = torch.tensor([[[5.0, 5, 25, 25], [40, 20, 60, 50]]])
    found, scores, classes = select(boxes, torch.tensor([[[0.2], [0.9]]]), torch.zeros(1, 2, 1, 4), SIZE, 0.05)
    assert scores[0, :3].tolist() == pytest.approx([0.9, 0.2, 0]) and scores.shape == (1, 100)
    assert torch.allclose(found[0, :2], boxes[0, [1, 0]], atol=1e-4) and not classes.any()


VARIANTS = [
    pytest.param({"pyramid": False}, id="c4"),
    pytest.param({"pyramid": True}, id="pyramid"),
    pytest.param({"depth": 50, "stride_in_1x1": True, "affine": True, "decouple": True}, id="even bins, folded affine"),
]


@pytest.mark.parametrize("options", VARIANTS)
def test_the_deployed_network_is_the_trained_one(lively: Make, options: dict[str, Any]) -> None:
    """With all bins pooled by the training form at the deployed number of samples, and the affine on the map."""
    network = lively(**options)
    frames = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        boxes, scores, classes = detect(network, frames)
        levels, rpn = network(frames)
        count = network.deployment.candidates // len(rpn.logits)
        (proposals,) = training_proposals(rpn, network.anchors, SIZE, count, network.deployment.proposals)
        from irforge.train.ops import roi_align

        adaptive = roi_align._axis_weights
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(roi_align, "_axis_weights", lambda *a: adaptive(*a[:-1], network.deployment.sampling))
            logits, deltas = network.roi_heads(network.pool(levels, [proposals]))
    expected = published(
        proposals, logits.softmax(1)[:, :-1], deltas.unflatten(1, (-1, 4)), network.deployment.least_score
    )
    n = len(expected)
    assert n > 5 and int((scores > 0).sum()) == n
    assert scores[0, :n].tolist() == pytest.approx([row[0] for row in expected], abs=1e-4)
    assert classes[0, :n].tolist() == [row[1] for row in expected]
    assert torch.allclose(boxes[0, :n], torch.tensor([row[2] for row in expected]), atol=0.02)


def contract_of(options: dict[str, Any], detector: str = "faster-rcnn") -> Contract:
    spec = InputSpec(height=SIZE[0], width=SIZE[1], fit=Letterbox(), normalization=Normalization(mean=100.0, std=40.0))
    output = output_of(find_detector(detector), 0.1, options)
    return Contract(input=spec, output=output, provenance=Provenance(detector=detector, network=options))


def test_class_names_live_in_the_contract_and_come_back_with_the_weights(lively: Make, tmp_path: Path) -> None:
    options = {"depth": 18, "pyramid": False, "freeze_at": 0, "classes": ["car", "person", "deer"]}
    network = lively()
    contract = contract_of(options)
    assert contract.output.classes == ["car", "person", "deer"]
    save_checkpoint(tmp_path / "c.safetensors", network, contract)
    deployable, read = load_deployable(tmp_path / "c.safetensors")
    assert read.output.classes == ["car", "person", "deer"]
    assert all(torch.equal(weight, deployable.network.state_dict()[n]) for n, weight in network.state_dict().items())


def test_weights_without_a_contract_get_numbered_classes(lively: Make, tmp_path: Path) -> None:
    torch.save(lively().state_dict(), tmp_path / "c.pth")
    _, contract = load_deployable(tmp_path / "c.pth", trust=True)
    assert contract.provenance.detector == "faster-rcnn"
    assert contract.output.classes == ["class 0", "class 1", "class 2"]


EXPORTS = [
    pytest.param("faster-rcnn", {"pyramid": False}, id="c4"),
    pytest.param("faster-rcnn", {"pyramid": True}, id="pyramid"),
    pytest.param(
        "glmd-ca",
        {"depth": 50, "stride_in_1x1": True, "affine": True, "decouple": True, "neck": True},
        id="glmd-ca",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "options"), EXPORTS)
def test_graph_and_module_find_the_same_boxes_and_nvidias_compiler_takes_it(
    lively: Make, tmp_path: Path, detector: str, options: dict[str, Any]
) -> None:
    network = lively(**options)
    contract = contract_of({"classes": ["car", "person", "deer"], **options}, detector)
    deployable = find_detector(detector).deployable(network, contract.input)
    model, _ = onnx_from_torch(deployable, contract)
    assert count_custom_ops(model)["FixedRoiAlign"] == (4 if options.get("pyramid") else 1)
    difference = largest_difference(model, deployable, contract)
    assert difference["boxes"] <= 0.05 and difference["scores"] <= 1e-4
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    shapes = {array.name: list(array.dims) for array in model.graph.initializer}
    assert shapes[stem.input[1]] == [64, 1, 7, 7] and not any(
        n.op_type == "BatchNormalization" for n in model.graph.node
    )
    full, half = tmp_path / "two.onnx", tmp_path / "two.fp16.onnx"
    save_model(full, model)
    half_model(full, half)
    pools_in_half_at_boxes_in_float(half)
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    from irforge.runtime.engines import compile_gate

    shares = [compile_gate(path, ("8.9",)).proofs[0].share("fp16", writes=False) for path in (full, half)]
    assert shares[0] == 0 and shares[1] > 0.95


@pytest.mark.slow
def test_a_dynamic_size_is_refused_by_name(lively: Make) -> None:
    contract = contract_of({"classes": ["car", "person", "deer"], "pyramid": False})
    deployable = find_detector("faster-rcnn").deployable(lively(), contract.input)
    with pytest.raises(ExportError, match="exported for one size"):
        onnx_from_torch(deployable, contract_for(contract, 16, dynamic_size=True))


def pools_in_half_at_boxes_in_float(path: Path) -> None:
    """FP16 has steps of half a pixel from 512 on: what makes proposals stays in FP32, though convolutions follow."""
    model = onnx.load(path)
    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type == "FixedRoiAlign":
            kinds = [graph.dtype(name) for name in node.input]
            assert kinds == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]
        elif node.op_type in ("TopK", "Exp", "GatherElements", "ReduceMax") and graph.dtype(node.input[0]) != 7:
            is_pool = node.op_type == "ReduceMax" and len(graph.shape(node.input[0]) or ()) == 4
            assert is_pool or graph.dtype(node.input[0]) in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64)
