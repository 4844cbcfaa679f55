"""The classical methods as the stages see them: options, deployable module, contract; there is nothing to train."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from irforge.contract import InputSpec, Normalization, OutputSpec, PadToMultiple, Range, TensorSpec
from irforge.errors import UsageError
from irforge.train.detectors.base import Deployable, MaskLoss, Normalise
from irforge.train.detectors.classical.contrast import Lcm, Mpcm, Wldm
from irforge.train.detectors.classical.fkrw import Fkrw
from irforge.train.detectors.classical.lowrank import Ipi, Nipps
from irforge.train.detectors.classical.method import Method
from irforge.train.detectors.classical.ript import Ript

Scale = Literal["peak", "range", "deviation"]

LEAST_SPREAD = 1e-3
"""Of a response whose peak is 1: what varies less is rounding on a plain frame."""


class Scored(nn.Module):
    """A method's response, brought to 0..1 frame by frame; that of a plain frame stays near 0.

    Args:
        scale: `peak`: the share of the frame's highest response, as mNoCoAP was published for these methods; every
            frame has a pixel of 1. `range`: the same with the frame's lowest response as 0. `deviation`: z / (z + k)
            for a response z standard deviations above the frame's mean, so that a threshold of 0.5 is the adaptive
            one of the papers, mean + k std, and a frame may be without targets.
        k: of `deviation`.
    """

    def __init__(self, method: Method, scale: Scale = "peak", k: float = 10.0) -> None:
        super().__init__()
        if scale not in get_args(Scale):
            raise ValueError(f"there is no scale '{scale}': {', '.join(get_args(Scale))}")
        if k <= 0:
            raise ValueError(f"k is above 0, not {k:g}")
        self.method, self.scale, self.k = method, scale, k

    def forward(self, levels: Tensor) -> Tensor:
        response = self.method(levels)
        share = response / response.amax(dim=(2, 3), keepdim=True).clamp_min(self.method.floor)
        if self.scale == "peak":
            return share.clamp_min(0)
        if self.scale == "range":
            lowest = share.amin(dim=(2, 3), keepdim=True)
            return (share - lowest) / (1 - lowest).clamp_min(LEAST_SPREAD)
        above = share - share.mean(dim=(2, 3), keepdim=True)
        deviation = above.square().mean(dim=(2, 3), keepdim=True).sqrt()
        z = (above / deviation.clamp_min(LEAST_SPREAD)).clamp_min(0)
        return z / (z + self.k)


class ClassicalDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> mask float32 N x 1 x H x W, 0..1: see `Scored`."""

    def __init__(self, network: Scored, mean: float, std: float, gain: str = "none") -> None:
        super().__init__()
        self.normalise = Normalise((mean,), (std,), gain)
        self.network = network
        self.stride = 1

    def forward(self, frames: Tensor) -> Tensor:
        mask: Tensor = self.network(self.normalise(frames))
        return mask


@dataclass
class Classical:
    """A registry's entry. Network options are those of the method, and of `Scored`."""

    name: str
    title: str
    method: Callable[..., Method]
    target: Literal["mask", "boxes"] = "mask"

    def build(self, scale: Scale = "peak", k: float = 10.0, **options: Any) -> nn.Module:
        return Scored(self.method(**options), scale, k)

    def options(self, **given: Any) -> dict[str, Any]:
        """All network options with their values, the given ones and the defaults, ready for JSON.

        Raises:
            TypeError: an option that there is not.
        """
        scored = {name: given.pop(name) for name in ("scale", "k") if name in given}
        own = inspect.signature(self.method).bind(**given)
        shared = inspect.signature(Scored).bind_partial(**scored)
        own.apply_defaults()
        shared.apply_defaults()
        found = {**own.arguments, **shared.arguments}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, Scored)
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return ClassicalDeployable(network, spec.normalization.mean, spec.normalization.std, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        mask = TensorSpec(
            name="mask", dtype="float32", shape=["N", 1, "H", "W"], meaning="response of the filter, scaled by frame"
        )
        return OutputSpec(kind="mask", classes=["target"], score_threshold=score_threshold, tensors=[mask])

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        """Frames of 8 bits at their own size: a resized target is another one, and a padded border responds."""
        return InputSpec(
            height=Range(min=32, opt=512, max=2048, multiple=1),
            width=Range(min=32, opt=640, max=2048, multiple=1),
            fit=PadToMultiple(multiple=1),
            normalization=Normalization(mean=0, std=255),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The contract alone knows them; a file that holds any weight is another detector's."""
        return None if weights else {}

    def loss(self, **options: Any) -> MaskLoss:
        raise UsageError(
            f"{self.title} is not trained", f"'irforge classical {self.name} -o FILE' makes its checkpoint"
        )

    def logits(self, network: nn.Module, frames: Tensor, epoch: int) -> Tensor:
        raise UsageError(f"{self.title} is not trained")


LCM = Classical("lcm", "LCM (Chen et al., TGRS 2014)", Lcm)
MPCM = Classical("mpcm", "MPCM (Wei et al., Pattern Recognition 2016)", Mpcm)
WLDM = Classical("wldm", "WLDM (Deng et al., TGRS 2016)", Wldm)
FKRW = Classical("fkrw", "FKRW (Qin et al., TGRS 2019)", Fkrw)
IPI = Classical("ipi", "IPI (Gao et al., TIP 2013)", Ipi)
NIPPS = Classical("nipps", "NIPPS (Dai et al., Infrared Physics & Technology 2017)", Nipps)
RIPT = Classical("ript", "RIPT (Dai and Wu, JSTARS 2017)", Ript)
