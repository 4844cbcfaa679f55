"""CM-CLIP: detections judged by how well their pixels fit the names of classes (Jung et al., RISF, 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.errors import UsageError
from irforge.rescoring import RescoringSpec
from irforge.train.rescoring.clip import Clip, VisionTower
from irforge.train.rescoring.fusion import Fusion, TorchRescorer, refuse_unknown, shares
from irforge.train.rescoring.tokens import Tokenizer, tokenize

PROMPT = "a photo of {}"
BACKGROUND = "background"
ALPHA = 0.7
SCALE = 100.0
"""What CLIP's own temperature is clipped to; its learned value is not used."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Preprocess = Literal["clip", "reference"]


class ClipScorer(nn.Module):
    """Crops, scores and classes -> new scores.

    Takes the tower over: what stands before it is folded into its patch convolution, which is exact because that has no
    padding.

    Args:
        preprocess: `clip` is CLIP's own mean and std of RGB; `reference` what RISF's published code does: blue first,
            and neither mean nor std.
    """

    def __init__(self, visual: VisionTower, fusion: Fusion, preprocess: Preprocess = "clip") -> None:
        super().__init__()
        if preprocess == "clip":
            visual.conv1 = fold_normalisation(visual.conv1, MEAN, STD)
        else:
            visual.conv1 = fold_normalisation(visual.conv1, (0, 0, 0), (1, 1, 1))
            visual.conv1.weight.data = visual.conv1.weight.data.flip(1)
        self.visual = visual
        self.fusion = fusion

    def forward(self, crops: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """crops float32 N x 3 x S x S in 0..1, scores float32 N, classes int64 N -> float32 N."""
        return self.fusion(self.visual(crops), scores, classes)


def fold_normalisation(conv: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> nn.Conv2d:
    """A convolution of x that equals `conv` of (x - mean) / std, channel by channel; `conv` must not pad."""
    if any(conv.padding) or conv.bias is not None:
        raise ValueError("a normalisation folds into a convolution without padding and bias")
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, bias=True)  # type: ignore[arg-type]
    weight = conv.weight.detach() / torch.tensor(std, dtype=conv.weight.dtype)[:, None, None]
    folded.weight = nn.Parameter(weight)
    folded.bias = nn.Parameter(-(weight * torch.tensor(mean, dtype=weight.dtype)[:, None, None]).sum(dim=(1, 2, 3)))
    return folded


@torch.no_grad()
def text_table(clip: Clip, names: Sequence[str], prompts: Sequence[str], tokens: Tokenizer = tokenize) -> Tensor:
    """float32 names x D, rows of unit length: of each name the mean over its prompts, `{}` being where the name goes.

    Raises:
        UsageError: no prompts, or one without `{}`.
    """
    if not prompts or not all("{}" in prompt for prompt in prompts):
        raise UsageError(f"prompts {list(prompts)} do not say where the class goes", "Write as in 'a photo of {}'")
    texts = tokens([prompt.replace("{}", name) for name in names for prompt in prompts])
    features = F.normalize(clip.encode_text(texts), dim=1).unflatten(0, (len(names), len(prompts)))
    return F.normalize(features.mean(dim=1), dim=1)


def clip_rescorer(
    clip: Clip,
    classes: Sequence[str],
    *,
    judged: Sequence[str] | None = None,
    prompts: Sequence[str] = (PROMPT,),
    words: Mapping[str, str] | None = None,
    background: str = BACKGROUND,
    preprocess: Preprocess = "clip",
    alpha: float | Mapping[str, float] = ALPHA,
    tokens: Tokenizer = tokenize,
    source: Mapping[str, Any] | None = None,
    **window: Any,
) -> TorchRescorer:
    """CM-CLIP for a detector of these classes.

    Args:
        clip: see `irforge.train.rescoring.clip.load_clip`; its image tower is taken over.
        classes: the detector's, by index.
        judged: those that are judged again, usually the novel ones; None means all. Others share no softmax with them.
        prompts: texts with `{}` for the class; several are averaged.
        words: what to write for a class instead of its name ("tv monitor" for "tvmonitor").
        background: one more name, for what is none of the classes.
        alpha: the detector's share, for all classes or by name; those not named get 0.7.
        tokens: what turns texts into token ids.
        source: to be kept for reading along with the prompts.
        window: `lower`, `upper`, `limit` and the like of `RescoringSpec`.

    Raises:
        UsageError: `judged` or `alpha` name a class that there is not, or a prompt has no place for the name.
        EnvironmentFault: the tokenizer is not installed.
    """
    chosen = list(classes if judged is None else judged)
    refuse_unknown([*chosen, *(alpha if isinstance(alpha, Mapping) else ())], classes)
    names = [(words or {}).get(name, name) for name in (*chosen, background)]
    spec = RescoringSpec(
        method="clip",
        classes=list(classes),
        columns=[chosen.index(name) if name in chosen else -1 for name in classes],
        alpha=shares(alpha, classes, ALPHA),
        crop_size=clip.sizes.image,
        source={**(source or {}), "prompts": [prompt.replace("{}", name) for name in names for prompt in prompts]},
        **window,
    )
    table = text_table(clip, names, prompts, tokens)
    return TorchRescorer(spec, ClipScorer(clip.visual, Fusion(spec, table, SCALE), preprocess))
