"""Activations in the form that backends compute fastest."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from irforge.graph import Graph


def spell_out_mish(graph: Graph) -> int:
    """Write Mish, x tanh(softplus(x)), as x s (1 + q) / (1 + q^2) with s = sigmoid(x) and q = 1 - s.

    The same function: tanh(softplus(x)) = (1 - q^2) / (1 + q^2), and 1 - q^2 = s (1 + q). TensorRT-RTX 1.7 runs a Mish
    node as a kernel of its own, but computes this in the epilogue of the convolution before it; ONNX Runtime has no
    kernel for Mish, and takes logarithms. All factors stay within 0 and 2, where log(1 + exp(x)) overflows FP16 from
    x = 11 on. A division ends it because Q/DQ placement looks for int8 beyond products.

    Returns:
        Number of nodes rewritten.
    """
    nodes = graph.of_type("Mish")
    kinds = {node.output[0]: graph.dtype(node.input[0]) or TensorProto.FLOAT for node in nodes}
    for node in nodes:
        x = node.input[0]
        one = graph.add_array(np.ones((), helper.tensor_dtype_to_np_dtype(kinds[node.output[0]])), "one")
        chance = graph.add("Sigmoid", [x], f"{node.output[0]}_sigmoid")
        rest = graph.add("Sub", [one, chance])
        share = graph.add("Mul", [chance, graph.add("Add", [rest, one])])
        scale = graph.add("Add", [graph.add("Mul", [rest, rest]), one])
        graph.replace(node, graph.add("Div", [graph.add("Mul", [x, share]), scale], f"{node.output[0]}_spelled"))
    return len(nodes)
