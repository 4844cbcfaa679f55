from __future__ import annotations

import pytest
import torch

from irforge.train.ops.gradient import scale_gradient


@pytest.mark.parametrize("factor", [1.0, 0.75, 0.01])
def test_values_pass_unchanged_and_gradients_scaled(factor: float) -> None:
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, factor)
    assert torch.equal(y, x)
    upstream = torch.randn(5)
    y.backward(upstream)
    assert x.grad is not None and torch.equal(x.grad, upstream * factor)


def test_a_factor_of_zero_stops_the_gradient() -> None:
    x = torch.randn(5, requires_grad=True)
    assert not scale_gradient(x, 0.0).requires_grad
