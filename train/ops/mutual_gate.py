"""Mutual gating: each of two feature maps is weighted by the sigmoid of the other (mutual distillation of GLMD-CA).

`torch.ops.irforge.mutual_gate` is one operator to autograd, torch.compile and torch.export, so that an exporter can
keep it as one node. It is registered by schema and kernel, and not with `torch.library.custom_op`, whose first call
imports the whole compiler: seconds, for a training that does not compile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def mutual_gate(g: Tensor, l: Tensor) -> Tensor:
    """concat[g * sigmoid(l), l * sigmoid(g)] over channels, differentiable once.

    The arithmetic is in float32 (float64 for float64) and rounded once, forward and backward.

    Args:
        g, l: N x C x ... of one shape, device and dtype: float32, float16, bfloat16 or float64; any strides.

    Returns:
        N x 2C x ..., contiguous, of the inputs' dtype.

    Raises:
        ValueError: the inputs differ in shape or device, or have no channel axis.
        TypeError: the inputs differ in dtype, or it is none of the four.
    """
    gated: Tensor = torch.ops.irforge.mutual_gate.default(g, l)
    return gated


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _empty_result(g: Tensor, l: Tensor) -> Tensor:
    if g.dtype != l.dtype or g.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise TypeError(f"mutual_gate takes two maps of one dtype ({names}), not {g.dtype} and {l.dtype}")
    if g.device != l.device:
        raise ValueError(f"mutual_gate takes two maps on one device, not {g.device} and {l.device}")
    if g.shape != l.shape:
        raise ValueError(f"mutual_gate takes two maps of one shape, not {tuple(g.shape)} and {tuple(l.shape)}")
    if g.dim() < 2:
        raise ValueError(f"mutual_gate joins its halves over axis 1, which a map of shape {tuple(g.shape)} lacks")
    return g.new_empty((g.shape[0], 2 * g.shape[1], *g.shape[2:]))


def _gate(g: Tensor, l: Tensor) -> Tensor:
    gated = _empty_result(g, l)
    over_g, over_l = gated.chunk(2, dim=1)
    wide_g, wide_l = _wide(g), _wide(l)
    torch.mul(wide_g, wide_l.sigmoid(), out=over_g)
    torch.mul(wide_l, wide_g.sigmoid(), out=over_l)
    return gated


def _empty_gradients(upstream: Tensor, g: Tensor, l: Tensor) -> tuple[Tensor, Tensor]:
    return g.new_empty(g.shape), l.new_empty(l.shape)


def _gate_backward(upstream: Tensor, g: Tensor, l: Tensor) -> tuple[Tensor, Tensor]:
    through_g, through_l = _wide(upstream).chunk(2, dim=1)
    wide_g, wide_l = _wide(g), _wide(l)
    sigmoid_g, sigmoid_l = wide_g.sigmoid(), wide_l.sigmoid()
    grad_g, grad_l = _empty_gradients(upstream, g, l)
    from_gate_g = torch.ops.aten.sigmoid_backward(through_l * wide_l, sigmoid_g)
    torch.addcmul(from_gate_g, through_g, sigmoid_l, out=grad_g)
    from_gate_l = torch.ops.aten.sigmoid_backward(through_g * wide_g, sigmoid_l)
    torch.addcmul(from_gate_l, through_l, sigmoid_g, out=grad_l)
    return grad_g, grad_l


def _save_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    grad_g, grad_l = torch.ops.irforge.mutual_gate_backward.default(upstream, *ctx.saved_tensors)
    return grad_g, grad_l


def _refuse(ctx: Any, *upstreams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    raise RuntimeError("mutual_gate is differentiable once; its gradients have no derivative")


_GATE, _BACKWARD = "irforge::mutual_gate", "irforge::mutual_gate_backward"
_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define(_GATE, "(Tensor g, Tensor l) -> Tensor", tags=_TAGS)
torch.library.impl(_GATE, "CompositeExplicitAutograd", _gate)
torch.library.register_fake(_GATE, _empty_result)
torch.library.register_autograd(_GATE, _differentiate, setup_context=_save_inputs)
torch.library.define(_BACKWARD, "(Tensor upstream, Tensor g, Tensor l) -> (Tensor, Tensor)", tags=_TAGS)
torch.library.impl(_BACKWARD, "CompositeExplicitAutograd", _gate_backward)
torch.library.register_fake(_BACKWARD, _empty_gradients)
torch.library.register_autograd(_BACKWARD, _refuse)
