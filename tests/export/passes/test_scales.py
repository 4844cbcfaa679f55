"""Gates and pools across scales: merged, and moved to maps that are in memory, with the same values."""

from __future__ import annotations

import numpy as np

from irforge.export.passes import merge_channel_gates, pool_before_moves
from irforge.graph import Graph
from tests.export.passes.rewriting import floats, kinds, model_of, rewrite

UP = 'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
DEPTHWISE = "Conv<group = 4, pads = [1, 1, 1, 1]>"
POOL = "AveragePool<kernel_shape = [2, 2], strides = [2, 2]>"


def _gates(enlarge: str = f"{UP}(g0, , two)", wide: str = "fine") -> str:
    """On two scales half of the channels is gated by a part of one map of gates, filtered and gated by its mean."""
    return f"""
        passed, fine = Split<axis = 1, num_outputs = 2>(x)
        kept, coarse = Split<axis = 1, num_outputs = 2>(z)
        pooled = {POOL}({wide})
        both = Concat<axis = 1>(pooled, coarse)
        gates = Sigmoid(both)
        g0, g1 = Split<axis = 1, num_outputs = 2>(gates)
        large = {enlarge}
        f0 = Mul(fine, large) y0 = {DEPTHWISE}(f0, d0)
        m0 = ReduceMean(y0, axes) h0 = Conv(m0, a0, b0) r0 = Relu(h0) o0 = Conv(r0, c0) s0 = Sigmoid(o0)
        t0 = Mul(y0, s0)
        f1 = Mul(coarse, g1) y1 = {DEPTHWISE}(f1, d1)
        m1 = ReduceMean(y1, axes) h1 = Conv(m1, a1) r1 = Relu(h1) o1 = Conv(r1, c1) s1 = Sigmoid(o1)
        t1 = Mul(y1, s1)"""


def _weights() -> dict[str, object]:
    return {
        "axes": [2, 3], "two": np.float32([1, 1, 2, 2]), "second": [2], "whole": [-1, 8, 16, 24],
        "d0": floats(4, 1, 3, 3), "d1": floats(4, 1, 3, 3),
        "a0": floats(2, 4, 1, 1), "a1": floats(3, 4, 1, 1), "b0": floats(2),
        "c0": floats(4, 2, 1, 1), "c1": floats(4, 3, 1, 1),
    }  # fmt: skip


def test_gates_of_all_scales_are_computed_together() -> None:
    model = model_of(_gates() + " w = Identity(t0) y = Identity(t1)", outputs="w y", **_weights())
    assert rewrite(model, merge_channel_gates) == [2]
    found = kinds(model)
    assert (found["ReduceMean"], found["Relu"], found["Conv"]) == (1, 1, 4)
    # The gates' map and the merged channel gates.
    assert (found["Sigmoid"], found["AveragePool"]) == (2, 2)


def test_free_sides_do_not_hinder_it() -> None:
    """That a map is enlarged to its scale says how many times larger it is."""
    model = model_of(
        _gates() + " w = Identity(t0) y = Identity(t1)", "N, 8, H, W", "N, 8, h, w", outputs="w y", **_weights()
    )
    assert rewrite(model, merge_channel_gates) == [2]


def test_a_gate_by_itself_stays() -> None:
    model = model_of(_gates() + " w = Identity(t0) y = Identity(f1)", outputs="w y", **_weights())
    assert rewrite(model, merge_channel_gates) == [0]


def test_a_smooth_enlargement_is_no_block_of_equal_pixels() -> None:
    smooth = UP.replace("nearest", "linear", 1).replace("asymmetric", "half_pixel")
    model = model_of(_gates(f"{smooth}(g0, , two)") + " w = Identity(t0) y = Identity(t1)", outputs="w y", **_weights())
    # Taken as a map of the coarse scale it would be averaged over the wrong pixels.
    assert rewrite(model, merge_channel_gates) == [0]


SHUFFLE = """
    left = Unsqueeze(passed, second) right = Unsqueeze(t0, second)
    stack = Concat<axis = 2>(left, right) shuffled = Reshape(stack, whole)
    again, next = Split<axis = 1, num_outputs = 2>(shuffled)
"""


def test_a_pool_behind_split_shuffle_and_gate_reads_the_maps_before_them() -> None:
    model = model_of(f"{_gates()} {SHUFFLE} w = {POOL}(next) y = Add(next, again)", outputs="w y", **_weights())
    assert rewrite(model, pool_before_moves) == [2]
    graph = Graph(model)
    # One pool of all of x for both halves, and one of the filtered map.
    assert sorted(pool.input[0] for pool in graph.of_type("AveragePool")) == ["x", "y0"]


def test_a_pool_of_the_filtered_map_serves_gate_and_next_step() -> None:
    model = model_of(
        f"{_gates()} {SHUFFLE} w = {POOL}(next) u = Add(next, again) v = Concat<axis = 1>(u, again) y = Identity(t1)",
        outputs="w v y",
        **_weights(),
    )
    assert rewrite(model, merge_channel_gates, pool_before_moves) == [2, 2]
    assert sorted(pool.input[0] for pool in Graph(model).of_type("AveragePool")) == ["x", "y0"]


def test_a_pool_that_overlaps_or_pads_stays() -> None:
    for pool in (POOL.replace("strides = [2, 2]", "strides = [1, 1]"), POOL.replace(">", ", pads = [1, 1, 1, 1]>")):
        model = model_of(f"a, b = Split<axis = 1, num_outputs = 2>(x) y = {pool}(b)")
        assert rewrite(model, pool_before_moves) == [0]


def test_a_plain_pool_stays() -> None:
    model = model_of(f"a = Relu(x) y = {POOL}(a)")
    assert rewrite(model, pool_before_moves) == [0]
