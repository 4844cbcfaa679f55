"""Equal weights give equal outputs in our two-stage detector and in detectron2's own, stage by stage, and the same
recipe trains on detectron2's modules. `pytest -s` prints the largest difference of each stage."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.errors import EnvironmentFault
from irforge.train.detectors.base import BoxBatch
from irforge.train.detectors.glmd.deploy import GLMD_CA
from irforge.train.detectors.twostage.deploy import FASTER_RCNN, detect
from irforge.train.detectors.twostage.loss import TwoStageLoss
from irforge.train.detectors.twostage.network import Deployment, TwoStage
from irforge.train.detectors.twostage.rpn import RpnMaps, fixed_proposals, training_proposals

Make = Callable[..., TwoStage]

needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None,
    reason="detectron2 is not installed; docs/detectron2.md says how to build it",
)

FORMS = [
    pytest.param({"depth": 18, "pyramid": False}, id="R18-C4"),
    pytest.param({"depth": 50, "pyramid": False}, id="R50-C4, stride in 3x3"),
    pytest.param({"depth": 50, "pyramid": False, "stride_in_1x1": True}, id="R50-C4, stride in 1x1"),
    pytest.param({"depth": 50, "pyramid": False, "stride_in_1x1": True, "bins": 14}, id="R50-C4 of the zoo"),
    pytest.param({"depth": 18, "pyramid": True}, id="R18-FPN"),
    pytest.param({"depth": 50, "pyramid": True}, id="R50-FPN, stride in 3x3"),
    pytest.param({"depth": 50, "pyramid": True, "stride_in_1x1": True}, id="R50-FPN, stride in 1x1"),
]
SIZE = (96, 128)
CANDIDATES, PROPOSALS = 500, 40


def reference(network: TwoStage, options: Mapping[str, Any], **changes: Any) -> Any:
    """detectron2's `GeneralizedRCNN` of its zoo's configuration, with our sizes, and with the network's weights."""
    from detectron2 import model_zoo
    from detectron2.modeling import ROI_HEADS_REGISTRY, ResNet, build_model
    from detectron2.modeling.backbone.resnet import BasicBlock
    from detectron2.modeling.roi_heads import Res5ROIHeads

    class BasicRes5ROIHeads(Res5ROIHeads):
        """detectron2's own makes res5 of bottlenecks whatever the depth."""

        @classmethod
        def _build_res5_block(cls, cfg: Any) -> tuple[nn.Module, int]:
            blocks = ResNet.make_stage(
                BasicBlock, 2, stride_per_block=[2, 1], in_channels=256, out_channels=512, norm=cfg.MODEL.RESNETS.NORM
            )
            return nn.Sequential(*blocks), 512

    form = "FPN" if options["pyramid"] else "C4"
    cfg = model_zoo.get_config(f"COCO-Detection/faster_rcnn_R_50_{form}_3x.yaml")
    model = cfg.MODEL
    model.DEVICE, model.PIXEL_MEAN, model.PIXEL_STD = "cpu", [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    model.RESNETS.DEPTH, model.RESNETS.STRIDE_IN_1X1 = options["depth"], options.get("stride_in_1x1", False)
    model.BACKBONE.FREEZE_AT = 0
    if options["depth"] < 50:
        model.RESNETS.RES2_OUT_CHANNELS = 64
        if form == "C4":
            ROI_HEADS_REGISTRY._obj_map["BasicRes5ROIHeads"] = BasicRes5ROIHeads
            model.ROI_HEADS.NAME = "BasicRes5ROIHeads"
    model.ANCHOR_GENERATOR.SIZES = [list(sizes) for sizes in network.anchors.sizes]
    model.ROI_HEADS.NUM_CLASSES = network.class_count
    model.ROI_HEADS.SCORE_THRESH_TEST = network.deployment.least_score
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = network.bins
    share = CANDIDATES // len(network.strides)
    model.RPN.PRE_NMS_TOPK_TEST = model.RPN.PRE_NMS_TOPK_TRAIN = share
    model.RPN.POST_NMS_TOPK_TEST = model.RPN.POST_NMS_TOPK_TRAIN = PROPOSALS
    model.RPN.BATCH_SIZE_PER_IMAGE = 64
    for name, value in changes.items():
        section, key = name.split("__")
        model[section][key] = value
    theirs = build_model(cfg)
    # Strict: every tensor has its counterpart, by name and shape.
    theirs.load_state_dict(network.state_dict())
    return theirs.eval()


def frames(count: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth noise, as frames are, around 0 and of unit scale."""
    torch.manual_seed(11)
    coarse = torch.randn(count, 3, size[0] // 8 + 1, size[1] // 8 + 1)
    return F.interpolate(coarse, size=size, mode="bilinear") + 0.2 * torch.randn(count, 3, *size)


def gap(ours: Tensor | Sequence[Tensor], theirs: Tensor | Sequence[Tensor]) -> float:
    """The largest difference."""
    pairs = [(ours, theirs)] if isinstance(ours, Tensor) else list(zip(ours, theirs, strict=True))
    assert all(one.shape == other.shape for one, other in pairs)
    return max(float((one - other).abs().max()) for one, other in pairs)


def show(case: str, **figures: float) -> None:
    print(f"\n{case}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))


@needs_detectron2
@pytest.mark.parametrize("options", FORMS)
@torch.no_grad()
def test_equal_weights_give_equal_outputs_at_every_stage(
    lively: Make, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    from detectron2.structures import Boxes, ImageList

    network = lively(**options, candidates=CANDIDATES, proposals=PROPOSALS)
    theirs = reference(network, options)
    x = frames()
    maps = theirs.backbone(x)
    levels = [maps[name] for name in theirs.proposal_generator.in_features]
    ours = network(x)
    scale = max(float(level.abs().max()) for level in levels)
    features = gap(ours.levels, levels[:4]) / scale

    logits, deltas = theirs.proposal_generator.rpn_head(levels)
    rpn = max(gap(ours.rpn.logits, logits), gap(ours.rpn.deltas, deltas))

    images = ImageList(x, [SIZE])
    proposed, _ = theirs.proposal_generator(images, maps)
    proposals = proposed[0].proposal_boxes.tensor
    same = RpnMaps(logits, deltas)
    fixed, real = fixed_proposals(same, network.anchors, SIZE, CANDIDATES, PROPOSALS)
    (trained,) = training_proposals(same, network.anchors, SIZE, CANDIDATES // len(levels), PROPOSALS)
    assert real.all()
    moved = max(gap(fixed[0], proposals), gap(trained, proposals))

    heads = theirs.roi_heads
    pooler = heads.box_pooler if options["pyramid"] else heads.pooler
    for_boxes = levels[:4]
    # Boxes of all levels of a pyramid; the large ones leave the frame, where both pool zeros.
    boxes = torch.cat([proposals, torch.tensor([[5.0, 8, 120, 130], [0, 0, 300, 250], [10, 20, 500, 600]])])
    expected = pooler(for_boxes, [Boxes(boxes)])
    pooled = gap(network.pool(for_boxes, [boxes]), expected) / scale
    trunk = heads.box_head(expected) if options["pyramid"] else heads.res5(expected).mean(dim=(2, 3))
    outputs = gap(network.roi_heads(expected), heads.box_predictor(trunk))

    # From the frame to the detections of the deployed graph, whose RoIAlign takes a fixed number of samples.
    (as_published,), _ = heads(images, maps, proposed)
    for level in pooler.level_poolers:
        level.sampling_ratio = network.deployment.sampling
    (found,), _ = heads(images, maps, proposed)
    count = len(found)
    boxes, scores, classes = (result[0] for result in detect(network, x))
    far, apart = gap(boxes[:count], found.pred_boxes.tensor), gap(scores[:count], found.scores)
    case = request.node.callspec.id
    show(case, features=features, rpn=rpn, proposals=moved, pooled=pooled, head=outputs)
    show(case, detections=count, boxes=far, scores=apart)
    cost = unlike(as_published, found)
    show(f"{case}, {network.deployment.sampling} samples a bin for as many as cells", **cost)
    assert features < 1e-5 and pooled < 1e-5
    assert rpn < 1e-3 and moved < 1e-3 and outputs < 1e-3
    assert count >= 5 and not scores[count:].any()
    assert classes[:count].tolist() == found.pred_classes.tolist()
    assert far < 0.01 and apart < 1e-4


def unlike(ones: Any, others: Any) -> dict[str, float]:
    """Of detections with a counterpart of their class within 4 pixels: the largest distance, and that of scores."""
    apart = (ones.pred_boxes.tensor[:, None] - others.pred_boxes.tensor).abs().amax(dim=2)
    apart[ones.pred_classes[:, None] != others.pred_classes] = float("inf")
    far, which = apart.min(dim=1)
    near = far < 4
    scores = (ones.scores - others.scores[which]).abs()
    return {
        "detections": len(ones),
        "found": int(near.sum()),
        "boxes": float(far[near].max()),
        "scores": float(scores[near].max()),
    }


def truth(classes: int = 3) -> BoxBatch:
    boxes = [torch.tensor([[12.0, 20, 50, 70], [70, 10, 120, 80]]), torch.tensor([[40.0, 40, 72, 66]])]
    return BoxBatch(boxes, [torch.tensor([0, classes - 1]), torch.tensor([1])], {})


@needs_detectron2
@pytest.mark.parametrize("options", [FORMS[0], FORMS[4]])
def test_equal_weights_give_detectron2s_losses_and_gradients(
    lively: Make, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """All proposals are sampled, since the two append true boxes at other ends; of the anchors the same are drawn."""
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    network = lively(**options).train()
    theirs = reference(network, options).train()
    x, true = frames(2), truth()
    loss = TwoStageLoss(candidates=CANDIDATES // len(network.strides), proposals=PROPOSALS, anchor_batch=64)
    terms = loss(network, x, true, epoch=0)
    torch.stack(list(terms.values())).sum().backward()

    batch = [
        {"image": image, "instances": Instances(SIZE, gt_boxes=Boxes(boxes), gt_classes=classes)}
        for image, boxes, classes in zip(x, true.boxes, true.classes, strict=True)
    ]
    with EventStorage():
        torch.manual_seed(zlib.crc32(repr((0, 0, [])).encode()))
        expected = theirs(batch)
    sum(expected.values()).backward()
    names = {"rpn_cls": "loss_rpn_cls", "rpn_box": "loss_rpn_loc", "cls": "loss_cls", "box": "loss_box_reg"}
    figures = {name: abs(float(terms[name]) / float(expected[other]) - 1) for name, other in names.items()}
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    apart = max(
        float((parameter.grad - gradients[name]).norm() / gradients[name].norm())
        for name, parameter in network.named_parameters()
    )
    show(request.node.callspec.id, **figures, gradients=apart)
    assert max(figures.values()) < 1e-4 and apart < 1e-3


@needs_detectron2
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"depth": 18, "pyramid": True, "norm": "batch", "freeze_at": 2}, id="R18-FPN"),
        pytest.param({"depth": 18, "pyramid": False, "affine": True, "bins": 14}, id="R18-C4"),
    ],
)
def test_two_steps_on_detectron2s_modules_are_two_steps_on_ours(
    lively: Make, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    from irforge.train.detectors.twostage.detectron import DetectronTwoStage

    ours = lively(**options).train()
    theirs = DetectronTwoStage(**{"class_count": 3, "freeze_at": 0, "anchor_sizes": (8, 16, 32, 48, 64), **options})
    theirs.load_state_dict(ours.state_dict())
    losses = []
    for network in (ours, theirs.train()):
        loss = TwoStageLoss(candidates=100, proposals=PROPOSALS, anchor_batch=64, roi_batch=16)
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
        steps = []
        for step in range(2):
            optimizer.zero_grad()
            terms = torch.stack(list(loss(network, frames(2), truth(), step).values()))
            terms.sum().backward()
            optimizer.step()
            steps.append(terms.detach())
        losses.append(torch.stack(steps))
    apart = float((losses[0] / losses[1] - 1).abs().max())
    state = theirs.state_dict()
    weights = max(gap(value.float(), state[name].float()) for name, value in ours.state_dict().items())
    show(request.node.callspec.id, losses=apart, weights=weights)
    assert not torch.allclose(losses[0][0], losses[0][1])
    assert apart < 1e-4 and weights < 1e-4


@needs_detectron2
@pytest.mark.parametrize(
    "options", [{"depth": 18, "norm": "batch"}, {"depth": 50, "pyramid": False, "stride_in_1x1": True, "freeze_at": 3}]
)
def test_the_backend_starts_and_saves_the_same_weights_and_deploys_the_same(options: dict[str, Any]) -> None:
    networks = []
    for backend in ("irforge", "detectron2"):
        torch.manual_seed(5)
        networks.append((FASTER_RCNN.build(backend=backend, **options).eval(), torch.rand(1)))
    (ours, after), (theirs, after_theirs) = networks
    assert type(ours) is TwoStage and type(theirs) is not TwoStage
    assert torch.equal(after, after_theirs)
    weights = theirs.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items())
    trained = [{name for name, p in network.named_parameters() if p.requires_grad} for network in (ours, theirs)]
    assert trained[0] == trained[1]
    found = FASTER_RCNN.options_of(weights)
    assert found is not None and type(FASTER_RCNN.build(**{"backend": "detectron2", **options, **found})) is TwoStage
    with torch.no_grad():
        x = torch.randn(1, 1, 64, 64)
        for network in (ours, theirs):
            network.deployment = Deployment(100, 20, 2, 0.0)
        assert gap(detect(ours, x)[:2], detect(theirs, x)[:2]) < 1e-3


def test_a_backend_that_is_not_here_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {"detectron2", *(name for name in sys.modules if name.startswith("detectron2."))}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "irforge.train.detectors.twostage.detectron", raising=False)
    with pytest.raises(EnvironmentFault, match=r"needs detectron2.*docs/detectron2\.md") as caught:
        GLMD_CA.build(backend="detectron2", depth=18)
    assert "\n" not in caught.value.line
    with pytest.raises(ValueError, match="backend is irforge or detectron2, not 'mmdet'"):
        FASTER_RCNN.build(backend="mmdet")
