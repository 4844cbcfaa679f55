"""Shared fixture: small chains of convolutions as whole deployables, in FP32, FP16 and INT8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.artifact import embed_contract, save_model
from irforge.contract import (
    Contract,
    InputSpec,
    Normalization,
    OutputSpec,
    PadToMultiple,
    Provenance,
    Range,
    Squash,
    TensorSpec,
)

ConvModel = Callable[..., Path]


class _Chain:
    """Frames -> 3x3 convolution -> residual pair -> 1x1 convolution -> mask."""

    def __init__(self, precision: str, channels: int) -> None:
        self.type = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
        self.dtype = np.float32 if precision == "fp32" else np.float16
        self.quantised = precision == "int8"
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        pixels = self.node("Cast", "frames", to=self.type)
        first = self.convolution(pixels, 1, channels, 3)
        second = self.convolution(first, channels, channels, 3, relu=False)
        joined = self.node("Relu", self.node("Add", self.quantise(second), self.quantise(first)))
        logit = self.convolution(joined, channels, 1, 1, relu=False)
        self.node("Cast", self.node("Sigmoid", logit), to=TensorProto.FLOAT)
        self.nodes[-1].output[0] = "mask"

    def convolution(self, x: str, ins: int, outs: int, kernel: int, relu: bool = True) -> str:
        weight = self.random.normal(0, 1 / np.sqrt(ins * kernel**2), (outs, ins, kernel, kernel)).astype(np.float32)
        bias = self.constant(self.random.normal(size=outs).astype(self.dtype))
        if self.quantised:
            scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
            integers = np.clip(np.round(weight / scale[:, None, None, None]), -127, 127).astype(np.int8)
            weights = self.node(
                "DequantizeLinear",
                self.constant(integers),
                self.constant(scale.astype(self.dtype)),
                self.constant(np.zeros(outs, np.int8)),
                axis=0,
            )
        else:
            weights = self.constant(weight.astype(self.dtype))
        y = self.node("Conv", self.quantise(x), weights, bias, pads=[kernel // 2] * 4)
        return self.node("Relu", y) if relu else y

    def quantise(self, x: str) -> str:
        if not self.quantised:
            return x
        step, zero = self.constant(np.array(0.25, self.dtype)), self.constant(np.array(0, np.int8))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, step, zero), step, zero)

    def constant(self, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(array, f"constant_{len(self.initializers)}"))
        return self.initializers[-1].name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


@pytest.fixture(scope="session")
def conv_model(tmp_path_factory: pytest.TempPathFactory) -> ConvModel:
    """Writes a deployable; `batch`, `height`, `width` may be symbols, sizes then range from 32 to 96."""

    def write(
        precision: str = "fp32",
        *,
        channels: int = 32,
        batch: int | str = 1,
        height: int | str = 32,
        width: int | str = 48,
    ) -> Path:
        chain = _Chain(precision, channels)
        shape = [batch, 1, height, width]
        graph = helper.make_graph(
            chain.nodes,
            "chain",
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("mask", TensorProto.FLOAT, shape)],
            chain.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        sizes = [side if isinstance(side, int) else Range(min=32, opt=64, max=96, multiple=16) for side in shape[2:]]
        contract = Contract(
            input=InputSpec(
                height=sizes[0],
                width=sizes[1],
                fit=Squash() if isinstance(height, int) else PadToMultiple(multiple=16),
                normalization=Normalization(mean=0, std=1),
            ),
            output=OutputSpec(
                kind="mask",
                classes=["target"],
                score_threshold=0.5,
                tensors=[TensorSpec(name="mask", dtype="float32", shape=["N", 1, *shape[2:]], meaning="probability")],
            ),
            provenance=Provenance(detector="chain", precision=precision),
        )
        embed_contract(model, contract)
        path = tmp_path_factory.mktemp("chain") / f"chain.{precision}.onnx"
        save_model(path, model)
        return path

    return write
