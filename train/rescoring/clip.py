"""CLIP (Radford et al., ICML 2021) with a ViT image tower; parameters are named as OpenAI and open_clip name them."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.errors import ArtifactError
from irforge.train.rescoring.weights import fill, read_weights

SOURCE = (
    "OpenAI's ViT-B-32.pt, ViT-B-16.pt or ViT-L-14-336px.pt (links: clip/clip.py of github.com/openai/CLIP), or of"
    " open_clip_model.safetensors of an open_clip model with a ViT"
)
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


@dataclass(frozen=True)
class ClipSizes:
    """image: side of a crop in pixels. embed: channels of what both towers give. Heads are width / head_width."""

    image: int = 336
    patch: int = 14
    width: int = 1024
    layers: int = 24
    embed: int = 768
    text_width: int = 768
    text_layers: int = 12
    context: int = 77
    vocabulary: int = 49408
    head_width: int = 64
    quick_gelu: bool = True

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor], head_width: int = 64, quick_gelu: bool = True) -> ClipSizes:
        """Read off the shapes. Neither the heads' width nor the kind of GELU is among them: OpenAI's are the defaults.

        Raises:
            KeyError: these are no CLIP weights, or those of one with another image tower.
        """
        width, _, patch, _ = weights["visual.conv1.weight"].shape
        side = math.isqrt(len(weights["visual.positional_embedding"]) - 1)
        context, text_width = weights["positional_embedding"].shape
        return cls(
            image=side * patch,
            patch=patch,
            width=width,
            layers=_count(weights, "visual.transformer.resblocks."),
            embed=weights["text_projection"].shape[1],
            text_width=text_width,
            text_layers=_count(weights, "transformer.resblocks."),
            context=context,
            vocabulary=len(weights["token_embedding.weight"]),
            head_width=head_width,
            quick_gelu=quick_gelu,
        )


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention over N x length x C, with the parameters of torch's own module, which does not export
    well; `causal` hides from each token what follows it."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        _, length, width = x.shape
        head_width = width // self.heads
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.reshape(-1, length, self.heads, head_width).transpose(1, 2) for part in projected.chunk(3, dim=-1)
        )
        # Queries are scaled before the product, whose sums could leave the range of float16.
        agreement = query * head_width**-0.5 @ key.transpose(2, 3)
        if self.causal:
            later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            agreement = agreement.masked_fill(later, -torch.inf)
        attended = agreement.softmax(dim=-1) @ value
        return self.out_proj(attended.transpose(1, 2).reshape(-1, length, width))


class Block(nn.Module):
    """Attention and perceptron, each behind its norm and added to its input."""

    def __init__(self, width: int, sizes: ClipSizes, causal: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, width // sizes.head_width, causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGelu() if sizes.quick_gelu else nn.GELU(),
                c_proj=nn.Linear(4 * width, width),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, sizes: ClipSizes, causal: bool) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, sizes, causal) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)


class VisionTower(nn.Module):
    """Crops N x 3 x S x S, normalised -> features N x D, not of unit length."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width, tokens = sizes.width, (sizes.image // sizes.patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, sizes.patch, sizes.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, sizes.layers, sizes, causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, sizes.embed) * width**-0.5)

    def forward(self, crops: Tensor) -> Tensor:
        patches = self.conv1(crops).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = torch.cat([whole, patches], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class Clip(nn.Module):
    """Both towers. `visual` encodes images, `encode_text` token ids."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.sizes = sizes
        self.visual = VisionTower(sizes)
        self.transformer = Transformer(width, sizes.text_layers, sizes, causal=True)
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(sizes.context, width) * 0.01)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, sizes.embed) * width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids int64 N x context -> features N x D, read at the end of text, which has the highest id."""
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        ends = x[torch.arange(len(tokens), device=x.device), tokens.argmax(dim=1)]
        return ends @ self.text_projection


def load_clip(
    path: str | os.PathLike[str], *, trust: bool = False, head_width: int = 64, quick_gelu: bool = True
) -> Clip:
    """A CLIP of the sizes that its checkpoint has, in eval mode.

    Args:
        path, trust: see `irforge.train.rescoring.weights.read_weights`.
        head_width: channels of an attention head; 80 for open_clip's ViT-H.
        quick_gelu: OpenAI's models have it; open_clip's own mostly have the exact GELU.

    Raises:
        InputError: there is no such file; says where to get one.
        ArtifactError: it cannot be read, or is no CLIP with a ViT.
    """
    weights = {name: t for name, t in read_weights(path, SOURCE, trust=trust).items() if name not in _NOT_WEIGHTS}
    try:
        sizes = ClipSizes.of_weights(weights, head_width, quick_gelu)
    except (KeyError, ValueError):
        raise ArtifactError(f"'{os.fspath(path)}' holds no CLIP with a ViT image tower", f"Give {SOURCE}") from None
    if sizes.width % head_width or sizes.text_width % head_width:
        raise ArtifactError(
            f"widths {sizes.width} and {sizes.text_width} of '{os.fspath(path)}' do not split into heads of"
            f" {head_width}",
            "Give the head width that the model was made with",
        )
    with torch.device("meta"):
        clip = Clip(sizes)
    clip = clip.to_empty(device="cpu")
    fill(clip, weights, path, SOURCE)
    return clip.eval()
