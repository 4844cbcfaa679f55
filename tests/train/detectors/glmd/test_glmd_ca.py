"""GLMD-CA as published: its size, its defaults, and what its decoupling gates do."""

from __future__ import annotations

import pytest
import torch

from irforge.train.detectors.glmd.confusion import confusion_aware_loss, confusion_aware_objectness
from irforge.train.detectors.glmd.deploy import GLMD_CA
from irforge.train.detectors.twostage.backbone import Body
from irforge.train.detectors.twostage.loss import TwoStageLoss
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.roi_heads import RoiHeads

PLAIN = {"neck": False, "decouple": False}


@pytest.mark.parametrize(
    ("options", "parameters"),
    [({"class_count": 11}, 84_695_973), ({"class_count": 72}, 85_320_918), ({"class_count": 11, **PLAIN}, 52_028_739)],
)
def test_the_network_has_the_published_number_of_parameters(options: dict[str, int], parameters: int) -> None:
    with torch.device("meta"):
        network = GLMD_CA.build(**options)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_its_parts_have_the_published_sizes_and_names() -> None:
    with torch.device("meta"):
        network = GLMD_CA.build(class_count=11)
    sizes = {"backbone.res4": 26_017_792, "backbone.stem": 9_408, "roi_heads.res5": 14_942_208}
    sizes |= {"glmd_network": 30_565_474, "proposal_generator.rpn_head": 9_515_083, "affine_rpn": 2_048}
    sizes |= {"roi_heads.decouple_cls_layer": 1_050_880, "roi_heads.decouple_reg_layer": 1_050_880}
    sizes |= {"roi_heads.box_predictor.cls_score": 24_588, "roi_heads.box_predictor.bbox_pred": 90_156}
    for name, size in sizes.items():
        assert sum(p.numel() for p in network.get_submodule(name).parameters()) == size, name
    assert network.state_dict()["affine_rcnn.weight"].shape == (1, 1024, 1, 1)
    assert "roi_heads.decouple_reg_layer.2.bias" in network.state_dict()


def test_its_defaults_are_those_of_the_few_shot_stage() -> None:
    with torch.device("meta"):
        network = GLMD_CA.build(class_count=11)
    assert isinstance(network, TwoStage)
    trained = {
        name.split(".")[0] + "." + name.split(".")[1] for name, p in network.named_parameters() if p.requires_grad
    }
    assert "backbone.res4" in trained and "backbone.res3" not in trained and "roi_heads.res5" not in trained
    assert (network.rpn_gradient, network.roi_gradient, network.roi_heads.dropout.p) == (0.01, 0.01, 0.8)
    criterion = GLMD_CA.loss()
    assert isinstance(criterion, TwoStageLoss)
    assert (criterion.classification, criterion.objectness) == (confusion_aware_loss, confusion_aware_objectness)
    spec = GLMD_CA.published_input({})
    assert (spec.size, spec.normalization.mean, spec.normalization.std) == ((800, 1216), 93.5781, 1.0)


def test_gates_weigh_each_channel_between_nothing_and_all() -> None:
    torch.manual_seed(0)
    heads = RoiHeads(Body(18, "frozen", False), False, 2, decouple=True, dropout=0.0)
    assert heads.decouple_cls_layer is not None and heads.decouple_reg_layer is not None
    v = torch.randn(5, 512, 1, 1)
    with torch.no_grad():
        for_class, for_box = heads.decouple_cls_layer(v), heads.decouple_reg_layer(v)
        logits, deltas = heads._predict(torch.zeros(1, 512))
    assert float(for_class.min()) > 0 and float(for_class.max()) < 1 and not torch.allclose(for_class, for_box)
    assert not logits.any() and not deltas.any()
