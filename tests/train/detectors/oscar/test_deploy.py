"""Frames in, boxes out: the in-graph decode is the published evaluation, and the exported graph computes the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from irforge.artifact import read_contract, save_model
from irforge.calib.collect import collect_ranges
from irforge.calib.half import half_model
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import save_ranges
from irforge.contract import Contract, InputSpec, Letterbox, Normalization, Provenance
from irforge.detections import decode
from irforge.export.convert import contract_for, onnx_from_torch
from irforge.frames import prepare
from irforge.graph import Graph
from irforge.runtime.backends.ort import OrtSession
from irforge.runtime.engines import BuildOptions, build_engine
from irforge.train.detectors.oscar.deploy import OSCAR, OscarDeployable, detections
from irforge.train.detectors.oscar.head import OscarMaps
from irforge.train.detectors.oscar.network import Oscar
from irforge.train.detectors.registry import find_detector
from irforge.train.recipe import read_recipe

SIZE = (96, 128)
Boxes = npt.NDArray[np.float64]


def lively(channels: int = 128, in_channels: int = 1, seed: int = 0) -> Oscar:
    """Random weights whose predictors are strong enough for classes, boxes and scores to differ between cells."""
    torch.manual_seed(seed)
    network = Oscar(channels, in_channels).eval()
    for name, parameter in network.bbox_head.named_parameters():
        if "_conv_" in name and name.endswith("weight"):
            parameter.data.mul_(5.0 if "_conv_reg" in name else 30.0)
    nn.init.constant_(network.bbox_head.coarse_conv_reg.bias, 2.7)
    nn.init.constant_(network.bbox_head.refine_conv_cls.bias, -6.0)
    return network


def spec_of(size: tuple[int, int] = SIZE) -> InputSpec:
    return InputSpec(height=size[0], width=size[1], fit=Letterbox(), normalization=Normalization(mean=104, std=34))


def contract_of(spec: InputSpec) -> Contract:
    return Contract(input=spec, output=OSCAR.output(0.1), provenance=Provenance(detector="oscar"))


def frames_of(size: tuple[int, int] = SIZE, count: int = 2, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, *size), dtype=np.uint8)


def published_evaluation(maps: OscarMaps, height: int, width: int, candidates: int) -> list[tuple[float, list[float]]]:
    """(score, box) of one frame, step by step as the authors' code goes; but degenerate boxes are dropped."""
    refine, delta, noco, coarse, ltrb = (m[0].double().numpy() for m in maps)

    def sigmoid(x: float) -> float:
        return 1 / (1 + float(np.exp(-x)))

    cells = sorted(
        ((sigmoid(refine[0, i, j]), i, j) for i in range(refine.shape[1]) for j in range(refine.shape[2])),
        key=lambda cell: -cell[0],
    )
    found = []
    for p, i, j in [cell for cell in cells if cell[0] > 0.05][:candidates]:
        up, left = i // 2, j // 2
        x, y = (left + 0.5) * 8, (up + 0.5) * 8
        l, t, r, b = ltrb[:, up, left]
        corners = np.array([x - l, y - t, x + r, y + b]) + 4 * delta[:, i, j]
        box = np.clip(corners, 0, [width, height, width, height])
        if box[2] > box[0] and box[3] > box[1]:
            found.append((p * sigmoid(coarse[0, up, left]) * sigmoid(noco[0, i, j]), box))
    found.sort(key=lambda row: -row[0])
    kept: list[tuple[float, Boxes]] = []
    for score, box in found:
        if not kept or (overlaps(box, np.array([other for _, other in kept])) <= 0.5).all():
            kept.append((score, box))
    return [(score, box.tolist()) for score, box in kept[:100]]


def overlaps(box: Boxes, others: Boxes) -> Boxes:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.asarray(shared / union)


@pytest.fixture(scope="module")
def maps() -> OscarMaps:
    with torch.no_grad():
        found: OscarMaps = lively()(torch.randn(2, 1, *SIZE))
    return found


@pytest.mark.parametrize("candidates", [256, 1000])
def test_detections_are_those_of_the_published_evaluation(maps: OscarMaps, candidates: int) -> None:
    boxes, scores, classes = detections(maps, *SIZE, candidates)
    assert boxes.shape == (2, 100, 4) and scores.shape == classes.shape == (2, 100)
    assert (boxes.dtype, scores.dtype, classes.dtype) == (torch.float32, torch.float32, torch.int64)
    for sample in (0, 1):
        single = OscarMaps(*(m[sample : sample + 1] for m in maps))
        expected = published_evaluation(single, *SIZE, candidates)
        assert len(expected) > 20
        n = len(expected)
        assert scores[sample, :n].tolist() == pytest.approx([score for score, _ in expected], rel=1e-4)
        assert torch.allclose(boxes[sample, :n], torch.tensor([box for _, box in expected]), atol=1e-3)
        assert not scores[sample, n:].any() and not boxes[sample, n:].any()


def test_the_case_holds_all_that_can_go_wrong(maps: OscarMaps) -> None:
    """Cells below the least probability, more cells than candidates, boxes outside, and boxes that suppress others."""
    probability = torch.sigmoid(maps.refine_logit)
    assert (probability <= 0.05).sum() > 50
    assert (probability > 0.05).flatten(1).sum(1).min() > 256
    boxes, scores, _ = detections(maps, *SIZE)
    valid = boxes[scores > 0]
    assert (valid.min() == 0) and (valid[:, 2] == SIZE[1]).any() and (valid[:, 3] == SIZE[0]).any()
    assert (scores > 0).sum(1).max() < 100


def test_scores_descend_and_boxes_lie_inside_the_frame(maps: OscarMaps) -> None:
    boxes, scores, _ = detections(maps, *SIZE)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert (boxes >= 0).all() and (boxes[..., 0::2] <= SIZE[1]).all() and (boxes[..., 1::2] <= SIZE[0]).all()
    valid = boxes[scores > 0]
    assert (valid[:, 2] > valid[:, 0]).all() and (valid[:, 3] > valid[:, 1]).all()


def test_with_zeroed_predictors_every_score_is_an_eighth() -> None:
    network = Oscar(128, in_channels=1).eval()
    for name, parameter in network.bbox_head.named_parameters():
        if "_conv_" in name:
            nn.init.zeros_(parameter)
    deployable = OSCAR.deployable(network, spec_of())
    with torch.no_grad():
        boxes, scores, _ = deployable(torch.from_numpy(frames_of()))
    found = boxes[scores > 0]
    assert set(scores[scores > 0].tolist()) == {0.125}
    assert (found[:, 2:] - found[:, :2] == 2).all()
    assert ((found[:, :2] + 1) % 8 == 4).all()


def test_a_frame_with_fewer_cells_than_candidates_has_detections_too() -> None:
    with torch.no_grad():
        boxes, scores, _ = OSCAR.deployable(lively(), spec_of((32, 32))).eval()(torch.from_numpy(frames_of((32, 32))))
    assert boxes.shape == (2, 100, 4)
    assert (scores > 0).any() and (scores[:, 64:] == 0).all()


def test_a_gray_frame_reaches_all_channels_normalised() -> None:
    deployable = OSCAR.deployable(Oscar(64, in_channels=3), spec_of())
    frames = torch.full((1, 1, 32, 32), 138, dtype=torch.uint8)
    assert torch.allclose(deployable.normalise(frames), torch.ones(1, 3, 32, 32))


def test_too_few_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        OscarDeployable(Oscar(64), (0.0,), (1.0,), candidates=50)


def test_the_registry_knows_it_and_its_recipe_makes_it() -> None:
    import irforge.train.detectors.oscar as package

    detector = find_detector("oscar")
    recipe = read_recipe(Path(package.__path__[0]) / "recipe.yaml")
    network = detector.build(**recipe.network)
    assert detector.options_of(network.state_dict()) == {**recipe.network, "dead_convolutions": False}
    detector.loss(**recipe.loss)  # type: ignore[attr-defined]
    assert recipe.epochs == 12
    for epoch in range(12):
        stage, _ = recipe.stage_at(epoch)
        assert stage.lr == pytest.approx([0.002 * (1 - epoch / 12)] * 2, rel=1e-4)


def exported(folder: Path, contract: Contract, network: Oscar) -> Path:
    path = folder / "oscar.onnx"
    model, _ = onnx_from_torch(OSCAR.deployable(network, contract.input).eval(), contract)
    save_model(path, model)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OSCAR-128 of any frame size, from a network of three channels."""
    contract = contract_for(contract_of(spec_of()), 32, dynamic_size=True)
    return exported(tmp_path_factory.mktemp("oscar"), contract, lively(in_channels=3))


def held_equal(path: Path, network: Oscar, size: tuple[int, int]) -> None:
    frames = frames_of(size, seed=3)
    with torch.no_grad():
        boxes, scores, classes = OSCAR.deployable(network, spec_of(size)).eval()(torch.from_numpy(frames))
    assert (scores > 0).sum(1).min() > 5
    with OrtSession(path) as session:
        found = session.run({"frames": frames})
    assert np.abs(found["scores"] - scores.numpy()).max() < 1e-4
    assert np.abs(found["boxes"] - boxes.numpy()).max() < 0.05
    assert np.array_equal(found["classes"], classes.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("size", [SIZE, (64, 64), (32, 32)])
def test_the_exported_graph_finds_the_same_boxes_at_every_size(small: Path, size: tuple[int, int]) -> None:
    held_equal(small, lively(in_channels=3), size)


@pytest.mark.slow
def test_the_exported_graph_has_no_shape_that_depends_on_pixel_values(small: Path) -> None:
    from irforge.artifact import load_model

    graph = Graph(load_model(small))
    operators = {node.op_type for node in graph.nodes}
    assert operators.isdisjoint({"NonZero", "NonMaxSuppression", "GatherND", "ScatterND", "Loop", "If"})
    assert sum(node.op_type == "InstanceNormalization" for node in graph.nodes) == 20
    output = read_contract(small).output
    assert [tensor.shape for tensor in output.tensors] == [["N", 100, 4], ["N", 100], ["N", 100]]


@pytest.mark.slow
def test_a_frame_becomes_detections_through_the_contract_alone(small: Path) -> None:
    contract = read_contract(small)
    frame = frames_of((90, 120), 1)[0, 0]
    tensor, geometry = prepare(frame, contract.input, "frame")
    with OrtSession(small) as session:
        found = decode(session.run({"frames": tensor}), contract, geometry, threshold=0.01)
    assert len(found) > 5
    assert (found.boxes[:, 2] <= 120).all() and (found.boxes[:, 3] <= 90).all()
    assert (found.scores[1:] <= found.scores[:-1]).all()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')",
)
@pytest.mark.parametrize(("channels", "size"), [(128, (256, 256)), (256, (512, 640))])
def test_both_models_pass_nvidias_compiler_and_find_the_same_boxes(
    tmp_path: Path, channels: int, size: tuple[int, int]
) -> None:
    network = lively(channels)
    path = exported(tmp_path, contract_of(spec_of(size)), network)
    held_equal(path, network, size)
    build_engine(path, tmp_path / "oscar.rtx.engine", BuildOptions(targets=("8.9",)))
    assert (tmp_path / "oscar.rtx.engine").stat().st_size > 1e7
    for number, frame in enumerate(frames_of(size)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame[0])
    ranges = tmp_path / "ranges.json"
    save_ranges(ranges, collect_ranges(path, str(tmp_path), threads=1))
    half_model(path, tmp_path / "oscar.fp16.onnx", ranges_path=ranges)
    quantize_model(path, tmp_path / "oscar.int8.onnx", ranges)
    shares = {}
    for precision in ("fp16", "int8"):
        engine = tmp_path / f"oscar.{precision}.rtx.engine"
        sidecar = build_engine(tmp_path / f"oscar.{precision}.onnx", engine, BuildOptions(targets=("8.9",)))
        (shares[precision],) = (proof.share(precision, writes=False) for proof in sidecar.proofs)
    # Random weights leave a fifth of the narrow model's work on maps that are always zero, which have no scale.
    assert shares["fp16"] > 0.99 and shares["int8"] > 0.75
