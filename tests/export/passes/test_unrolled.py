"""What is spelled out for compilers has the same values; what would need unknown sides stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from irforge.export.passes import filter_by_taps, pool_by_reduction, repeat_by_broadcast
from tests.export.passes.rewriting import floats, kinds, model_of, rewrite

UP = 'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
POOL = "AveragePool<kernel_shape = [4, 4], strides = [4, 4]>"
FREE = {"x": "N, 8, H, W", "z": "N, 8, h, w"}


@pytest.mark.parametrize("kind", ["Mul", "Add"])
@pytest.mark.parametrize("order", ["u, x", "x, u"])
def test_repeated_pixels_become_broadcast_values(kind: str, order: str) -> None:
    model = model_of(f"u = {UP}(z, , two) y = {kind}({order})", two=np.float32([1, 1, 2, 2]))
    assert rewrite(model, repeat_by_broadcast) == [1]
    assert kinds(model) == {"Reshape": 3, kind: 1}


@pytest.mark.parametrize(
    "body",
    [
        f"u = {UP}(z, , two) y = Sub(u, x)",
        f"u = {UP}(z, , two) v = Mul(u, x) y = Add(u, v)",
        f"u = {UP}(z, , two) y = Mul(u, u)",
        f"u = {UP}(z, , two) m = ReduceMean(x, axes) y = Mul(u, m)",
        f"{UP.replace('nearest', 'linear', 1)}".join(["u = ", "(z, , two) y = Mul(u, x)"]),
    ],
    ids=["other operator", "read twice", "squared", "broadcast already", "bilinear"],
)
def test_other_enlarged_maps_stay(body: str) -> None:
    model = model_of(body, two=np.float32([1, 1, 2, 2]), axes=[2, 3])
    assert rewrite(model, repeat_by_broadcast) == [0]


def test_a_pool_becomes_a_mean_over_two_axes() -> None:
    model = model_of(f"y = {POOL}(x)")
    assert rewrite(model, pool_by_reduction) == [1]
    assert kinds(model) == {"Reshape": 1, "ReduceMean": 1}


def test_a_pool_that_leaves_a_rest_stays() -> None:
    assert rewrite(model_of(f"y = {POOL}(x)", x="N, 8, 18, 24"), pool_by_reduction) == [0]


def test_unknown_sides_keep_resize_and_pool() -> None:
    model = model_of(f"u = {UP}(z, , two) v = Mul(u, x) y = {POOL}(v)", two=np.float32([1, 1, 2, 2]), **FREE)
    assert rewrite(model, repeat_by_broadcast, pool_by_reduction) == [0, 0]


@pytest.mark.parametrize("sides", [{}, FREE], ids=["fixed", "free"])
@pytest.mark.parametrize(("kernel", "pads"), [((3, 3), "1, 1, 1, 1"), ((1, 5), "0, 3, 0, 1")])
def test_a_filter_of_a_gated_map_becomes_a_sum_of_shifted_maps(
    kernel: tuple[int, int], pads: str, sides: dict[str, str]
) -> None:
    model = model_of(
        f"g = Sigmoid(x) v = Mul(x, g) y = Conv<group = 8, pads = [{pads}]>(v, w, b)",
        w=floats(8, 1, *kernel), b=floats(8), **sides,
    )  # fmt: skip
    assert rewrite(model, filter_by_taps) == [1]
    taps = kernel[0] * kernel[1]
    assert kinds(model) == {"Sigmoid": 1, "Mul": 1 + taps, "Pad": 1, "Slice": taps, "Add": taps}


@pytest.mark.parametrize(
    "body",
    [
        "v = Relu(x) y = Conv<group = 8, pads = [1, 1, 1, 1]>(v, d)",
        "v = Mul(x, x) y = Conv<group = 8, pads = [1, 1, 1, 1], strides = [2, 2]>(v, d)",
        "v = Mul(x, x) y = Conv<pads = [1, 1, 1, 1]>(v, w)",
        "v = Mul(x, x) u = Conv<group = 8, pads = [1, 1, 1, 1]>(v, d) y = Add(u, v)",
    ],
    ids=["not gated", "strided", "full width", "product in use"],
)
def test_other_convolutions_stay(body: str) -> None:
    assert rewrite(model_of(body, d=floats(8, 1, 3, 3), w=floats(8, 8, 3, 3)), filter_by_taps) == [0]
