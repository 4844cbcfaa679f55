"""Strangers' models: graphs whose outputs are given tables, and small networks that find bright spots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.adopt.strangers import write_model

Stranger = Callable[..., Path]
SIDE = 64


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    """Writes a model whose outputs are the given tables, [1, ...], whatever its frame: each is added to 0 x the mean.

    Keyword arguments: `channels`, `size` (sides or symbols), `door` (element type), `opset`, `metadata`, `more` (nodes
    to append), `domains`.
    """

    def write(
        tables: Mapping[str, np.ndarray],
        *,
        name: str = "stranger.onnx",
        channels: int = 3,
        size: tuple[int | str, int | str] = (SIDE, SIDE),
        door: int = TensorProto.FLOAT,
        opset: int = 18,
        metadata: Mapping[str, str] | None = None,
        more: Sequence[onnx.NodeProto] = (),
        domains: Sequence[str] = (),
    ) -> Path:
        nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)]
        nodes.append(helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0))
        nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
        arrays = {"zero": np.zeros((), np.float32)}
        outputs = []
        for key, table in tables.items():
            arrays[f"{key}_table"] = table
            kind = helper.np_dtype_to_tensor_dtype(table.dtype)
            nodes.append(helper.make_node("Cast", ["nothing"], [f"{key}_nothing"], to=kind))
            nodes.append(helper.make_node("Add", [f"{key}_table", f"{key}_nothing"], [key]))
            outputs.append(helper.make_tensor_value_info(key, kind, table.shape))
        image = helper.make_tensor_value_info("images", door, [1, channels, *size])
        return write_model(
            tmp_path / name, [*nodes, *more], [image], outputs, arrays, opset=opset, metadata=metadata, domains=domains
        )

    return write


@pytest.fixture(scope="session")
def spotter(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Writes a small anchor-free network of layout `yolo`, N x 5 x cells at stride 8: boxes of 6 x 6 pixels about each
    cell's centre, scored by how bright the cell's brightest pixel is.

    Keyword arguments: `size`, `batch` (a symbol or a number).
    """

    def write(name: str = "spotter.onnx", size: tuple[int, int] = (64, 96), batch: str | int = "N") -> Path:
        height, width = size
        rows, columns = height // 8, width // 8
        random = np.random.default_rng(0)
        arrays: dict[str, np.ndarray] = {
            # 16 channels, so that there is something to quantise; both layers keep the pixels' mean. The head then
            # gives 16 x brightness - 9.6: a score of 0.95 at level 200, of 0.02 at level 90.
            "stem": np.full((16, 3, 1, 1), 1 / 3, np.float32)
            + random.normal(0, 1e-3, (16, 3, 1, 1)).astype(np.float32),
            "mix": np.full((16, 16, 1, 1), 1 / 16, np.float32),
            "head": np.ones((1, 16, 1, 1), np.float32),
            "bias": np.array([-9.6], np.float32),
            "box": np.zeros((4, 16, 1, 1), np.float32),
            "box_bias": np.array([0, 0, 6, 6], np.float32),
            "grid": _grid(rows, columns),
            "flat_scores": np.array([0, 1, -1], np.int64),
            "flat_boxes": np.array([0, 4, -1], np.int64),
        }
        nodes = [
            helper.make_node("Conv", ["images", "stem"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "mix"], ["c"]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Conv", ["e", "head", "bias"], ["f"]),
            helper.make_node("Reshape", ["f", "flat_scores"], ["g"]),
            helper.make_node("Sigmoid", ["g"], ["scores"]),
            helper.make_node("Conv", ["e", "box", "box_bias"], ["h"]),
            helper.make_node("Reshape", ["h", "flat_boxes"], ["i"]),
            helper.make_node("Add", ["i", "grid"], ["boxes"]),
            helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
        ]
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, height, width])
        result = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 5, rows * columns])
        path = tmp_path_factory.mktemp("spotter") / name
        return write_model(path, nodes, [image], [result], arrays)

    return write


def _grid(rows: int, columns: int) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * 8 + 4
    return np.stack([x, y, 0 * x, 0 * y])[None].astype(np.float32)
