"""Rewrites around the gates: exact where they apply, and they apply only where the pattern is whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from irforge.export.passes.gates import (
    fuse_channel_gates,
    fuse_spatial_gates,
    merge_gated_convolutions,
    quantize_in_gates,
)
from irforge.export.passes.reductions import merge_shared_perceptrons
from irforge.graph import Graph
from irforge.ops import add_bodies, count_custom_ops
from irforge.ops.base import PLUGIN_ATTRIBUTES

CHANNELS, HIDDEN = 4, 2
GATE = 'gated = irforge.MutualGate<plugin_namespace = "", plugin_version = "1">(g, l)'
SPLIT = "a, b = Split<axis = 1, num_outputs = 2>(gated)"
RNG = np.random.default_rng(0)
WEIGHTS = {
    "v": RNG.normal(size=(3, CHANNELS, 3, 3)).astype(np.float32),
    "w": RNG.normal(size=(3, CHANNELS, 3, 3)).astype(np.float32),
    "narrow": RNG.normal(size=(1, CHANNELS, 3, 3)).astype(np.float32),
    "large": RNG.normal(size=(1, 2, 17, 17)).astype(np.float32),
    "v_bias": RNG.normal(size=3).astype(np.float32),
    "w_bias": RNG.normal(size=3).astype(np.float32),
    "squeeze": RNG.normal(size=(HIDDEN, CHANNELS, 1, 1)).astype(np.float32),
    "other": RNG.normal(size=(HIDDEN, CHANNELS, 1, 1)).astype(np.float32),
    "excite": RNG.normal(size=(CHANNELS, HIDDEN, 1, 1)).astype(np.float32),
    "spatial": RNG.normal(size=(1, 2, 7, 7)).astype(np.float32),
    "wide": RNG.normal(size=(1, 2, 7, 5)).astype(np.float32),
    "channels": np.array([1], np.int64),
    "map": np.array([2, 3], np.int64),
    "from_0": np.array([0], np.int64),
    "to_4": np.array([CHANNELS], np.int64),
    "to_end": np.array([2**62], np.int64),
    "scale": np.float32(0.03),
    "scales": np.full(2 * CHANNELS, 0.03, np.float32),
    "zero": np.int8(0),
    "zeros": np.zeros(2 * CHANNELS, np.int8),
    "unsigned": np.uint8(0),
}
PADS = "pads = [1, 1, 1, 1]"


def model_of(body: str) -> onnx.ModelProto:
    maps = f"float[N, {CHANNELS}, 9, 8]"
    text = f"""<ir_version: 10, opset_import: ["": 20, "irforge": 1]>
        g ({maps} g, {maps} l) => (float[N, C, H, W] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in WEIGHTS.items() if k in read)
    add_bodies(model)
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    rng = np.random.default_rng(1)
    feeds = {value.name: rng.normal(size=(2, CHANNELS, 9, 8)).astype(np.float32) for value in model.graph.input}
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


def rewritten(body: str, rewrite) -> tuple[int, Graph, float]:
    """How often a rewrite applied, the graph, and by how much it changed the result."""
    model = model_of(body)
    before = run(model)
    graph = Graph(model)
    count = rewrite(graph)
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    return count, graph, float(np.abs(run(model) - before).max())


# --- two convolutions behind a gate


@pytest.mark.parametrize(
    "halves",
    [SPLIT, "a = Slice(gated, from_0, to_4, channels) b = Slice(gated, to_4, to_end, channels)"],
    ids=["split", "slices"],
)
@pytest.mark.parametrize(
    "convolutions",
    [
        f"p = Conv<{PADS}>(a, v, v_bias) q = Conv<{PADS}>(b, w, w_bias) f = Add(p, q)",
        f"p = Conv<{PADS}>(a, v, v_bias) q = Conv<{PADS}>(b, w) f = Add(q, p)",
        f"p = Conv<{PADS}>(b, v) q = Conv<{PADS}>(a, w) f = Add(p, q)",
    ],
    ids=["biases", "one bias, sum turned", "no bias, halves turned"],
)
def test_two_convolutions_behind_a_gate_become_one(halves: str, convolutions: str) -> None:
    count, graph, difference = rewritten(f"{GATE} {halves} {convolutions} y = Relu(f)", merge_gated_convolutions)
    assert count == 1 and difference < 1e-5
    assert [node.op_type for node in graph.nodes] == ["MutualGate", "Conv", "Relu"]


@pytest.mark.parametrize(
    "body",
    [
        f"{SPLIT} p = Conv<{PADS}>(a, v) q = Conv<pads = [0, 1, 2, 1]>(b, w) f = Add(p, q) y = Relu(f)",
        f"{SPLIT} p = Conv<{PADS}>(a, v) q = Conv<{PADS}>(a, w) f = Add(p, q) y = Relu(f)",
        f"{SPLIT} p = Conv<{PADS}>(a, v) q = Conv<{PADS}>(b, w) f = Add(p, q) h = Relu(p) y = Add(f, h)",
        f"{SPLIT} p = Conv<{PADS}>(a, v) q = Conv<{PADS}>(b, narrow) f = Add(p, q) y = Relu(f)",
    ],
    ids=["different settings", "one half twice", "a result read elsewhere", "different widths"],
)
def test_other_pairs_stay_apart(body: str) -> None:
    count, _, difference = rewritten(f"{GATE} {body}", merge_gated_convolutions)
    assert count == 0 and difference == 0


# --- a quantiser behind a gate


def quantised(parameters: str) -> str:
    return f"{GATE} q = QuantizeLinear<axis = 1>(gated, {parameters}) y = DequantizeLinear<axis = 1>(q, {parameters})"


def test_a_gate_writes_the_int8_values_itself() -> None:
    count, graph, difference = rewritten(quantised("scale, zero"), quantize_in_gates)
    assert count == 1 and difference == 0
    assert count_custom_ops(graph.model) == {"QuantizedMutualGate": 1}


@pytest.mark.parametrize("parameters", ["scales, zeros", "scale, unsigned"])
def test_other_quantisers_stay(parameters: str) -> None:
    assert rewritten(quantised(parameters), quantize_in_gates)[0] == 0


def test_a_gate_that_something_else_reads_keeps_its_values() -> None:
    body = f"{GATE} q = QuantizeLinear(gated, scale, zero) d = DequantizeLinear(q, scale, zero) y = Add(d, gated)"
    assert rewritten(body, quantize_in_gates)[0] == 0


# --- channel attention


def channel_attention(second: str = "squeeze", axes: str = "map", last: str = "y = Mul(g, s)") -> str:
    return f"""m = ReduceMean<keepdims = 1>(g, {axes}) p = ReduceMax<keepdims = 1>(g, map)
        m1 = Conv(m, squeeze) m2 = Relu(m1) m3 = Conv(m2, excite)
        p1 = Conv(p, {second}) p2 = Relu(p1) p3 = Conv(p2, excite)
        z = Add(m3, p3) s = Sigmoid(z) {last}"""


def fuse_merged_channel_gates(graph: Graph) -> int:
    merge_shared_perceptrons(graph)
    graph.tidy()
    return fuse_channel_gates(graph)


@pytest.mark.parametrize("last", ["y = Mul(g, s)", "y = Mul(s, g)"])
def test_channel_attention_becomes_one_operator(last: str) -> None:
    count, graph, difference = rewritten(channel_attention(last=last), fuse_merged_channel_gates)
    assert count == 1 and difference < 1e-6
    assert [node.op_type for node in graph.nodes] == ["ChannelGate"]


def test_a_mean_in_another_precision_is_still_found() -> None:
    body = channel_attention().replace(
        "m = ReduceMean<keepdims = 1>(g, map)",
        "c = Cast<to = 1>(g) r = ReduceMean<keepdims = 1>(c, map) m = Cast<to = 1>(r)",
    )
    assert rewritten(body, fuse_merged_channel_gates)[0] == 1


@pytest.mark.parametrize(
    "body",
    [
        channel_attention(second="other"),
        channel_attention(last="y = Mul(l, s)"),
        channel_attention(last="y = Add(g, s)"),
    ],
    ids=["two perceptrons", "another map is gated", "a sum"],
)
def test_other_attention_over_channels_stays(body: str) -> None:
    assert rewritten(body, fuse_merged_channel_gates)[0] == 0


# --- spatial attention


def spatial_attention(
    conv: str = "Conv<pads = [3, 3, 3, 3]>(c, spatial)", pooled: str = "m, p", source: str = "g"
) -> str:
    return f"""m = ReduceMean<keepdims = 1>(g, channels) p = ReduceMax<keepdims = 1>(g, channels)
        c = Concat<axis = 1>({pooled}) z = {conv} s = Sigmoid(z) y = Mul({source}, s)"""


def test_spatial_attention_becomes_one_operator() -> None:
    count, graph, difference = rewritten(spatial_attention(), fuse_spatial_gates)
    assert count == 1 and difference == 0
    assert [node.op_type for node in graph.nodes] == ["SpatialGate"]


@pytest.mark.parametrize(
    "body",
    [
        spatial_attention(pooled="p, m"),
        spatial_attention(source="l"),
        spatial_attention(conv="Conv<pads = [3, 2, 3, 2]>(c, wide)"),
        spatial_attention(conv="Conv<pads = [6, 6, 6, 6], dilations = [2, 2]>(c, spatial)"),
        spatial_attention(conv="Conv<pads = [8, 8, 8, 8]>(c, large)"),
    ],
    ids=["maximum first", "another map is gated", "not square", "dilated", "larger than native code takes"],
)
def test_other_spatial_attention_stays(body: str) -> None:
    assert rewritten(body, fuse_spatial_gates)[0] == 0


def test_fused_nodes_carry_what_nvidias_parser_needs() -> None:
    _, graph, _ = rewritten(spatial_attention(), fuse_spatial_gates)
    (node,) = graph.nodes
    assert {entry.name for entry in node.attribute} == set(PLUGIN_ATTRIBUTES)
