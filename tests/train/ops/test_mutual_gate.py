"""The operator has its golden values, gradients and bounds in every dtype, and is one node to compilers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from irforge.train.ops.mutual_gate import mutual_gate

G = [-2.0, -1.0, 0.0, 1.0, 2.0]
L = [3.0, 0.0, -3.0, 1.0, -1.0]
OVER_G = [-1.90514825, -0.5, 0.0, 0.73105858, 0.53788284]
OVER_L = [0.35760877, 0.0, -1.5, 0.73105858, -0.88079708]
GRAD_G = [1.58253564, 0.5, -1.45257413, 1.12428245, 0.05895425]
GRAD_L = [0.14805252, 0.28788284, 1.0, 1.65872909, 2.15481802]

TOLERANCE = {
    torch.float64: (0.0, 1e-8),
    torch.float32: (1e-7, 1e-7),
    torch.float16: (2.0**-11, 1e-7),
    torch.bfloat16: (2.0**-8, 1e-7),
}
"""Relative and absolute: the last rounding, and the digits of the golden values or those of float32 arithmetic."""
DTYPES = list(TOLERANCE)
OPS = torch.ops.irforge
DTYPE_NAMES = [str(dtype) for dtype in DTYPES]
LARGEST = torch.finfo(torch.float16).max


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    g, l = (3 * torch.randn((2, *shape), generator=generator, dtype=torch.float64)).to(dtype)
    return g.requires_grad_(), l.requires_grad_()


def plain(g: Tensor, l: Tensor) -> Tensor:
    return torch.cat([g * l.sigmoid(), l * g.sigmoid()], dim=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
def test_values_and_gradients_are_golden(dtype: torch.dtype) -> None:
    g = torch.tensor(G, dtype=dtype).view(1, 1, 1, 5).requires_grad_()
    l = torch.tensor(L, dtype=dtype).view(1, 1, 1, 5).requires_grad_()
    y = mutual_gate(g, l)
    y.backward(torch.tensor([1.0, 2.0], dtype=dtype).view(1, 2, 1, 1).expand_as(y))
    assert y.dtype == dtype and y.shape == (1, 2, 1, 5)
    assert g.grad is not None and l.grad is not None
    relative, absolute = TOLERANCE[dtype]
    for actual, golden in ((y[0, 0], OVER_G), (y[0, 1], OVER_L), (g.grad, GRAD_G), (l.grad, GRAD_L)):
        assert actual.flatten().tolist() == pytest.approx(golden, rel=relative, abs=absolute)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_and_gradients_are_those_of_float64_within_the_rounding(dtype: torch.dtype, seed: int) -> None:
    g, l = pair((2, 5, 4, 3), dtype, seed)
    upstream = torch.randn(2, 10, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    y = mutual_gate(g, l)
    gradients = torch.autograd.grad(y, (g, l), upstream)
    wide_g, wide_l = g.detach().double().requires_grad_(), l.detach().double().requires_grad_()
    exact = plain(wide_g, wide_l)
    exact_gradients = torch.autograd.grad(exact, (wide_g, wide_l), upstream.double())
    # The arithmetic's own float32 rounding shows where a gradient's two terms cancel.
    rounding, cancellation = torch.finfo(dtype).eps / 2 * 1.001 + 3e-7, 3e-6
    torch.testing.assert_close(y.double(), exact, rtol=rounding, atol=torch.finfo(dtype).tiny)
    for ours, theirs in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=rounding, atol=cancellation)


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(mutual_gate, pair((2, 3, 2, 2)))


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_no_half_exceeds_what_it_gates(dtype: torch.dtype, seed: int) -> None:
    g, l = pair((2, 4, 3, 5), dtype, seed)
    over_g, over_l = mutual_gate(g, l).chunk(2, dim=1)
    assert bool((over_g.abs() <= g.abs()).all()) and bool((over_l.abs() <= l.abs()).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_swapped_inputs_swap_the_halves(dtype: torch.dtype, seed: int) -> None:
    g, l = pair((2, 4, 3, 5), dtype, seed)
    assert torch.equal(mutual_gate(l, g), torch.cat(mutual_gate(g, l).chunk(2, dim=1)[::-1], dim=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
def test_zero_halves_the_other_map(dtype: torch.dtype) -> None:
    g, _ = pair((2, 4, 3, 5), dtype)
    over_g, over_zero = mutual_gate(g, torch.zeros_like(g)).chunk(2, dim=1)
    assert torch.equal(over_g, g / 2)
    assert torch.count_nonzero(over_zero) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
def test_largest_float16_values_saturate_without_nan(dtype: torch.dtype) -> None:
    extremes = torch.tensor([-LARGEST, -90.0, 0.0, 90.0, LARGEST], dtype=torch.float64).to(torch.float16).to(dtype)
    g, l = (grid.reshape(1, 1, 5, 5).requires_grad_() for grid in torch.meshgrid(extremes, extremes, indexing="ij"))
    y = mutual_gate(g, l)
    gradients = torch.autograd.grad(y.sum(), (g, l))
    assert all(bool(torch.isfinite(t).all()) for t in (y, *gradients))
    assert y[0, :, -1, -1].tolist() == [float(extremes[-1])] * 2
    assert torch.count_nonzero(y[0, :, 0, 0]) == 0


def test_any_strides_give_the_contiguous_result() -> None:
    g, l = pair((2, 3, 4, 5))
    expected = mutual_gate(g, l)
    strided_g = g.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    strided_l = l.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    y = mutual_gate(strided_g, strided_l)
    # Not to the last bit: with AVX-512, torch's sigmoid of contiguous float64 rounds otherwise than that of strided.
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-14)
    assert y.is_contiguous()
    upstream = torch.randn(4, 5, 2, 6, dtype=torch.float64).permute(2, 3, 0, 1)
    for ours, theirs in zip(
        torch.autograd.grad(y, (strided_g, strided_l), upstream),
        torch.autograd.grad(expected, (g, l), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 7), (2, 3, 4, 5), (1, 2, 3, 2, 3), (0, 3, 2, 2), (2, 0, 3)])
@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
def test_operators_keep_to_torch_rules(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    g, l = pair(shape, dtype)
    torch.library.opcheck(OPS.mutual_gate.default, (g, l))
    upstream = torch.ones(shape[0], 2 * shape[1], *shape[2:], dtype=dtype)
    torch.library.opcheck(OPS.mutual_gate_backward.default, (upstream, g.detach(), l.detach()))


def test_strided_operands_keep_to_torch_rules() -> None:
    g, l = pair((2, 3, 4, 5))
    strided = g.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(OPS.mutual_gate.default, (strided, l))


def test_second_derivative_is_refused() -> None:
    g, l = pair((1, 2, 3))
    (slope,) = torch.autograd.grad(mutual_gate(g, l).square().sum(), g, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("g", "l", "error", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(1, 3, 4), ValueError, r"one shape, not \(2, 3, 4\) and \(1, 3, 4\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3).half(), TypeError, "one dtype .* torch.float32 and torch.float16"),
        (torch.zeros(2, 3).int(), torch.zeros(2, 3).int(), TypeError, "float32, float16.* torch.int32"),
        (torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), ValueError, "one device, not cpu and meta"),
        (torch.zeros(3), torch.zeros(3), ValueError, r"axis 1, which a map of shape \(3,\) lacks"),
    ],
)
def test_unequal_maps_are_refused(g: Tensor, l: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mutual_gate(g, l)


def test_result_on_the_meta_device_has_shape_and_dtype() -> None:
    y = mutual_gate(*(torch.empty(2, 3, 4, 5, dtype=torch.float16, device="meta") for _ in range(2)))
    assert y.device.type == "meta" and y.shape == (2, 6, 4, 5) and y.dtype == torch.float16


class Gate(torch.nn.Module):
    def forward(self, g: Tensor, l: Tensor) -> Tensor:
        return mutual_gate(g, l).relu()


def test_export_keeps_one_node_at_any_size() -> None:
    sides = {axis: torch.export.Dim(f"side_{axis}") for axis in range(4)}
    program = torch.export.export(Gate(), pair((2, 3, 4, 5)), dynamic_shapes=(sides, sides))
    gates = [node for node in program.graph.nodes if node.target == OPS.mutual_gate.default]
    assert len(gates) == 1
    g, l = pair((3, 7, 2, 9))
    assert torch.equal(program.module()(g, l), Gate()(g, l))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_module_has_the_same_values_and_gradients(backend: str) -> None:
    compiled = torch.compile(Gate(), fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 3, 4, 5), (1, 6, 7, 2)):
        g, l = pair(shape)
        y, expected = compiled(g, l), Gate()(g, l)
        assert torch.equal(y, expected)
        for ours, theirs in zip(
            torch.autograd.grad(y.sum(), (g, l)), torch.autograd.grad(expected.sum(), (g, l)), strict=True
        ):
            assert torch.equal(ours, theirs)
