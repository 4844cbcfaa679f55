"""The tail of every image encoder: features to new scores, in the graph; and the encoder behind the Rescorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.errors import UsageError
from irforge.rescoring import Array, Rescorer, RescoringSpec


class Fusion(nn.Module):
    """alpha score + (1 - alpha) agreement of a box with its class; boxes of classes without a row keep their score.

    The agreement is the class' own probability in softmax(scale features . table) where there is a scale (CM-CLIP), and
    the cosine with the class' row where there is none (PCB).

    Args:
        spec: columns and alphas by class.
        table: C x D, one row for each class that is judged, and more that share the softmax; brought to unit length.
        scale: see above.
    """

    table: Tensor
    columns: Tensor
    alpha: Tensor

    def __init__(self, spec: RescoringSpec, table: Tensor, scale: float | None) -> None:
        super().__init__()
        if max(spec.columns) >= len(table):
            raise ValueError(f"a class names row {max(spec.columns)} of a table of {len(table)}")
        self.scale = scale
        self.register_buffer("table", F.normalize(table.detach().float(), dim=1))
        self.register_buffer("columns", torch.tensor(spec.columns))
        self.register_buffer("alpha", torch.tensor(spec.alpha, dtype=torch.float32))

    def forward(self, features: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """features N x D, scores float32 N, classes int64 N -> new scores float32 N."""
        agreement = F.normalize(features.float(), dim=1) @ self.table.t()
        if self.scale is not None:
            agreement = (self.scale * agreement).softmax(dim=1)
        column, alpha = self.columns.index_select(0, classes), self.alpha.index_select(0, classes)
        own = agreement.gather(1, column.clamp_min(0)[:, None])[:, 0]
        return torch.where(column >= 0, alpha * scores + (1 - alpha) * own, scores)


class TorchRescorer(Rescorer):
    """A Rescorer whose encoder is a torch module in eval mode; its `forward` takes what `Score` takes, by name."""

    def __init__(self, spec: RescoringSpec, module: nn.Module) -> None:
        super().__init__(spec, self._run)
        self.module = module.eval()

    @torch.no_grad()
    def _run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        device = next(self.module.buffers()).device
        result: Tensor = self.module(**{name: torch.from_numpy(feed).to(device) for name, feed in feeds.items()})
        return result.cpu().numpy()


def refuse_unknown(names: Sequence[str], classes: Sequence[str]) -> None:
    """Raises UsageError for the first name that is no class."""
    for name in names:
        if name not in classes:
            raise UsageError(f"the detector has no class '{name}'", f"Its classes: {', '.join(classes)}")


def shares(alpha: float | Mapping[str, float], classes: Sequence[str], default: float) -> list[float]:
    """The detector's share by class, from one for all or some by name."""
    if isinstance(alpha, Mapping):
        return [float(alpha.get(name, default)) for name in classes]
    return [float(alpha)] * len(classes)


def parse_alpha(texts: Sequence[str]) -> float | dict[str, float]:
    """'0.7' for all classes, or 'person=0.9' and more of its kind.

    Raises:
        UsageError: no share from 0 to 1, or both kinds.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, separator, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1 or bool(separator) != bool(name) or (not name and len(texts) > 1):
            raise UsageError(f"alpha '{text}' is no share", "Write 0.7 once, or person=0.9 for each class")
        found[name] = share
    return found.get("", found)
