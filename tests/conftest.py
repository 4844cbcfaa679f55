"""Fixtures that many tests share: a tiny deployable that finds bright spots, and frames with spots to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from irforge.artifact import embed_contract, save_model
from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, Provenance, Squash, TensorSpec

SpotModel = Callable[..., Path]


@pytest.fixture(scope="session")
def spot_model(tmp_path_factory: pytest.TempPathFactory) -> SpotModel:
    """Writes a whole deployable of four nodes: probability > 0.5 where a level exceeds 128.

    Keyword arguments: `size` (height, width), `batch` (a symbol or a number), `door`, `contract` (False leaves it out),
    and fields of `InputSpec`.
    """

    def write(
        name: str = "spot.onnx",
        size: tuple[int, int] = (64, 64),
        batch: str | int = "N",
        contract: bool = True,
        **fields: Any,
    ) -> Path:
        height, width = size
        spec = InputSpec(
            **{"height": height, "width": width, "fit": Squash(), "normalization": Normalization(mean=128, std=8)}
            | fields
        )
        door = "float" if spec.door == "float32" else "uint8"
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["": 17]>
            spot ({door}[{batch}, 1, {height}, {width}] frames) => (float[{batch}, 1, {height}, {width}] mask) {{
                pixels = Cast<to = 1>(frames)
                mean = Constant<value = float {{128.0}}>()
                std = Constant<value = float {{8.0}}>()
                above = Sub(pixels, mean)
                normalised = Div(above, std)
                mask = Sigmoid(normalised)
            }}"""
        )
        tensor = TensorSpec(name="mask", dtype="float32", shape=["N", 1, height, width], meaning="target probability")
        output = OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[tensor])
        if contract:
            embed_contract(model, Contract(input=spec, output=output, provenance=Provenance(detector="spot")))
        path = tmp_path_factory.mktemp("spot") / name
        save_model(path, model)
        return path

    return write


@pytest.fixture
def spot_frame() -> Callable[..., np.ndarray]:
    """Gray frames of level 90 with three bright pixels in a row, from column `x` in row `y`."""

    def make(height: int = 64, width: int = 64, x: int = 20, y: int = 30) -> np.ndarray:
        frame = np.full((height, width), 90, np.uint8)
        frame[y, x : x + 3] = (150, 200, 160)
        return frame

    return make
