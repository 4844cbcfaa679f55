"""The GLMD neck: global context and local detail of one feature map, fused by mutual gating.

Written from a description of Wan et al.'s GLMD-CA, an infrared few-shot detector, and from the names and shapes that
its weights have: this module's state dict is theirs after the prefix `glmd_network.`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.ops.mutual_gate import mutual_gate


def sine_position_code(
    height: int, width: int, channels: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Sines and cosines of a pixel's row in the first half of the channels, of its column in the second half.

    With h = C/2 and f_k = 10000^(-2k/h), channels 2k and 2k + 1 of a half are sin(y f_k) and cos(y f_k). Coordinates
    are pixels of the map, not scaled to its size.

    Returns:
        The code's two terms, H x 1 x C and 1 x W x C in float32: each is zero in the other's half of the channels.
        Adding them one after the other never makes the H x W x C sum, which a fixed-size export would store.
    """
    half = channels // 2
    frequencies = torch.exp(torch.arange(0, half, 2, device=device, dtype=torch.float32) * (-math.log(10000) / half))

    def waves(length: int) -> Tensor:
        angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

    return F.pad(waves(height), (0, half))[:, None], F.pad(waves(width), (half, 0))[None]


class SelfAttention(nn.Module):
    """Multi-head self-attention along the last axis but one, with the parameters of torch's own module.

    Written out as two products and a softmax: torch's module has a fast path that does not export, and its fused
    attention exports with needless reshapes around the keys. For half-precision inputs torch's softmax sums in float32.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend within each sequence of a B x sequences x length x C tensor; same shape."""
        length, channels = tokens.shape[-2:]
        head_size = channels // self.heads
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.reshape(-1, length, self.heads, head_size).permute(0, 2, 1, 3) for part in projected.chunk(3, dim=-1)
        )
        # Queries are scaled before the product, whose sums could leave the range of float16.
        attention = (query * head_size**-0.5 @ key.transpose(2, 3)).softmax(dim=-1)
        attended = self.dropout(attention) @ value
        return self.out_proj(attended.transpose(1, 2).reshape(tokens.shape))


class EncoderLayer(nn.Module):
    """Transformer encoder layer with the norms behind the sums; tokens B x sequences x length x C.

    Torch's layer norm keeps its statistics in float32 for half-precision inputs.
    """

    def __init__(self, channels: int, heads: int, ffn_mult: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = SelfAttention(channels, heads, dropout)
        self.linear1 = nn.Linear(channels, ffn_mult * channels)
        self.linear2 = nn.Linear(ffn_mult * channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.dropout(self.self_attn(tokens)))
        hidden = self.dropout(F.gelu(self.linear1(tokens)))
        return self.norm2(tokens + self.dropout(self.linear2(hidden)))


class ContextModelling(nn.Module):
    """Axial transformer: one encoder layer, used along every row and then along every column."""

    def __init__(self, channels: int, heads: int, ffn_mult: int, dropout: float, legacy_batch_mixing: bool) -> None:
        super().__init__()
        self.legacy_batch_mixing = legacy_batch_mixing
        layers = nn.ModuleList([EncoderLayer(channels, heads, ffn_mult, dropout)])
        self.tfEncoder = nn.ModuleDict({"layers": layers})

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        rows, columns = sine_position_code(height, width, channels, x.device)
        tokens = x.permute(0, 2, 3, 1) + rows.to(x.dtype) + columns.to(x.dtype)
        along_rows = self._encode(tokens)
        along_columns = self._encode(along_rows.transpose(1, 2))
        return along_columns.permute(0, 3, 2, 1)

    def _encode(self, tokens: Tensor) -> Tensor:
        layer = self.get_submodule("tfEncoder.layers.0")
        if not self.legacy_batch_mixing:
            return layer(tokens)
        batch, _, length, _ = tokens.shape
        joined = tokens.transpose(0, 1).flatten(1, 2)
        return layer(joined[None])[0].unflatten(1, (batch, length)).transpose(0, 1)


class ChannelGate(nn.Module):
    """One gate a channel, N x C x 1 x 1, from the global mean and the global maximum through one shared perceptron."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = channels // ratio
        self.ca_neck = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.ca_neck(mean) + self.ca_neck(peak))


class SpatialGate(nn.Module):
    """One gate a pixel, N x 1 x H x W, from the mean and the maximum over channels."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(pooled))


class LocalRefinement(nn.Module):
    """A depthwise branch gated by channel and a pointwise branch gated by pixel, mixed back to C channels."""

    def __init__(self, channels: int, ca_ratio: int, sa_kernel: int) -> None:
        super().__init__()
        self.cr_module = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
        self.sr_module = nn.Sequential(nn.Conv2d(channels, channels, 1))
        self.ca_module = ChannelGate(channels, ca_ratio)
        self.sa_module = SpatialGate(sa_kernel)
        self.dconv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        cr, sr = self.cr_module(x), self.sr_module(x)
        return self.dconv(torch.cat([self.ca_module(cr) * cr, self.sa_module(sr) * sr], dim=1))


class GlmdNeck(nn.Module):
    """Context modelling, local refinement and their mutual distillation fusion, added to the map they refine.

    Args:
        channels: C of the map; a multiple of 4 and of `heads`.
        heads: attention heads.
        ffn_mult: width of the encoder's perceptron over C.
        dropout: of the encoder, in training.
        ca_ratio: C over the width of the channel gate's perceptron.
        sa_kernel: side of the spatial gate's convolution; odd.
        fusion: `distill`: both maps gate each other, then a 3x3 convolution for each.
        context_modelling, local_refinement: with one of them off the other's output is added to the map as it is;
            with both off the neck is the identity.
        legacy_batch_mixing: let attention run across the images of a batch, as the published training code does.
            Only to compare with it; at a batch of one there is no difference.

    Raises:
        ValueError: sizes that do not go together, or an unknown fusion.
    """

    def __init__(
        self,
        channels: int = 1024,
        heads: int = 16,
        ffn_mult: int = 2,
        dropout: float = 0.1,
        ca_ratio: int = 16,
        sa_kernel: int = 7,
        fusion: str = "distill",
        context_modelling: bool = True,
        local_refinement: bool = True,
        legacy_batch_mixing: bool = False,
    ) -> None:
        super().__init__()
        if channels % heads or channels % 4 or channels < ca_ratio:
            raise ValueError(
                f"channels is a multiple of heads ({heads}) and of 4, at least ca_ratio ({ca_ratio}), not {channels}"
            )
        if sa_kernel % 2 == 0:
            raise ValueError(f"sa_kernel is odd, not {sa_kernel}")
        if fusion != "distill":
            raise ValueError(f"fusion is 'distill', not '{fusion}'")
        self.global_module = (
            ContextModelling(channels, heads, ffn_mult, dropout, legacy_batch_mixing) if context_modelling else None
        )
        self.local_module = LocalRefinement(channels, ca_ratio, sa_kernel) if local_refinement else None
        if context_modelling and local_refinement:
            self.global_conv = nn.Conv2d(channels, channels, 3, padding=1)
            self.local_conv = nn.Conv2d(channels, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Refine a feature map.

        Args:
            x: N x C x H x W, any H and W.

        Returns:
            A map of the same shape. Images of a batch do not influence each other.
        """
        if self.global_module is None or self.local_module is None:
            only = self.global_module or self.local_module
            return x if only is None else only(x) + x
        context, detail = self.global_module(x), self.local_module(x)
        # Under autocast the last norm gives float32 and the convolution half precision.
        gated_context, gated_detail = mutual_gate(context.to(detail.dtype), detail).chunk(2, dim=1)
        return self.global_conv(gated_context) + self.local_conv(gated_detail) + x
