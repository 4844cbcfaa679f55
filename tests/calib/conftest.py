"""Shared fixtures: a small attentive network with MSHNet's patterns as an FP32 deployable, and frames for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.artifact import embed_contract, save_model
from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, Provenance, Squash, TensorSpec

SIDE = 32


class Net:
    """Builds ONNX graphs node by node; weights are random, with channels of very different loudness as in a trained
    and batch-norm-folded network."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32, name: str = "") -> str:
        name = name or f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, outs: int, ins: int, kernel: int, gain: float = 1.4, name: str = "") -> str:
        loudness = self.random.uniform(-1.5, 1.5, (outs, 1, 1, 1))
        values = self.random.normal(0, gain / np.sqrt(ins * kernel**2), (outs, ins, kernel, kernel)) * 2**loudness
        return self.constant(values, name=name)

    def conv(self, x: str, ins: int, outs: int, kernel: int, *, weight: str = "", bias: bool = True) -> str:
        parameters = [weight or self.weight(outs, ins, kernel)]
        if bias:
            parameters.append(self.constant(self.random.normal(0, 0.1, outs)))
        return self.node("Conv", x, *parameters, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2)

    def block(self, x: str, ins: int, outs: int) -> str:
        """Two convolutions, channel and spatial attention, residual: as `AttentiveResidual` is exported."""
        u = self.conv(self.node("Relu", self.conv(x, ins, outs, 3)), outs, outs, 3)
        axes = self.constant([2, 3], np.int64)
        pooled = [self.node(kind, u, axes, keepdims=1) for kind in ("ReduceMean", "ReduceMax")]
        hidden = self.node("Relu", self.conv(self.node("Concat", *pooled, axis=1), 2 * outs, 2, 1, bias=False))
        u = self.node("Mul", self.node("Sigmoid", self.conv(hidden, 2, outs, 1, bias=False)), u)
        axis = self.constant([1], np.int64)
        planes = [self.node(kind, u, axis, keepdims=1) for kind in ("ReduceMean", "ReduceMax")]
        gate = self.node("Sigmoid", self.conv(self.node("Concat", *planes, axis=1), 2, 1, 7, bias=False))
        shortcut = x if ins == outs else self.conv(x, ins, outs, 1)
        return self.node("Relu", self.node("Add", self.node("Mul", gate, u), shortcut))

    def model(self, contract: bool = True, side: int = SIDE, opset: int = 20, channels: int = 1) -> onnx.ModelProto:
        shape = ["N", channels, side, side]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, side, side])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        if contract:
            spec = InputSpec(height=side, width=side, fit=Squash(), normalization=Normalization(mean=100, std=30))
            tensor = TensorSpec(name="mask", dtype="float32", shape=["N", 1, side, side], meaning="probability")
            output = OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[tensor])
            embed_contract(model, Contract(input=spec, output=output, provenance=Provenance(detector="net")))
        return model


def attentive_net(seed: int = 0) -> Net:
    """Stem, block, pool, wider block, upsampling, concat with the skip, block, head."""
    net = Net(seed)
    x = net.node("Cast", "frames", to=TensorProto.FLOAT)
    x = net.node("Div", net.node("Sub", x, net.constant(100.0)), net.constant(30.0))
    skip = net.block(net.conv(x, 1, 16, 1), 16, 16)
    deep = net.block(net.node("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2]), 16, 32)
    up = net.node(
        "Resize",
        deep,
        "",
        net.constant([1, 1, 2, 2], name="scales"),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    joined = net.block(net.node("Concat", skip, up, axis=1), 48, 16)
    net.node("Sigmoid", net.conv(joined, 16, 1, 1), out="mask")
    return net


@pytest.fixture(scope="session")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attentive network as a deployable."""
    path = tmp_path_factory.mktemp("attentive") / "attentive.onnx"
    save_model(path, attentive_net().model())
    return path


@pytest.fixture(scope="session")
def frame_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six gray frames: soft clouds with a bright target of two to six pixels."""
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(1)
    for index in range(6):
        cloud = cv2.GaussianBlur(random.normal(0, 60, (SIDE, SIDE)), (0, 0), 4) * 4 + 100
        y, x = random.integers(4, SIDE - 6, 2)
        cloud[y : y + 2, x : x + 1 + index % 3] += 120
        cv2.imwrite(str(folder / f"{index:02d}.png"), np.clip(cloud, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="session")
def attentive_ranges(tmp_path_factory: pytest.TempPathFactory, attentive: Path, frame_folder: Path) -> Path:
    """RANGES.json of the attentive network on those frames."""
    from irforge.calib.collect import collect_ranges
    from irforge.calib.ranges import save_ranges

    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    save_ranges(path, collect_ranges(attentive, str(frame_folder), threads=1))
    return path


Run = Callable[[onnx.ModelProto | Path, np.ndarray], np.ndarray]


@pytest.fixture(scope="session")
def run_model() -> Run:
    """Runs a model or file on ONNX Runtime's CPU: uint8 N x 1 x H x W -> its first output."""
    import onnxruntime

    def run(model: onnx.ModelProto | Path, frames: np.ndarray) -> np.ndarray:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        result: np.ndarray = session.run(None, {session.get_inputs()[0].name: frames})[0]
        return result

    return run


@pytest.fixture(scope="session")
def frames_tensor(frame_folder: Path) -> np.ndarray:
    """The frames of `frame_folder` as one batch, uint8 6 x 1 x 32 x 32."""
    paths = sorted(frame_folder.glob("*.png"))
    return np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[None] for path in paths])
