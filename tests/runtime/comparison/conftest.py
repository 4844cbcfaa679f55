"""Models that answer what can be counted by hand, and frames for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import numpy_helper

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.compare import compare_models
from irforge.runtime.comparison.schema import Comparison
from tests.box_model import box_frame, write_box_model

Spots = Sequence[tuple[int, int]]


def write_set(folder: Path, frames: Mapping[str, tuple[Spots, Spots]], lists: Mapping[str, Sequence[str]] = {}) -> Path:
    """Frames of 64 x 64: targets of 3 x 3 pixels from (x, y) on, the middle at 220, and clutter of one pixel at 140."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, (targets, clutter) in frames.items():
        frame = box_frame(*targets)
        mask = np.where(frame > 90, 255, 0).astype(np.uint8)
        for x, y in clutter:
            frame[y, x] = 140
        cv2.imwrite(str(folder / "images" / f"{name}.png"), frame)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names))
    return folder


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Two targets, one target, and none but clutter."""
    return write_set(
        tmp_path / "three", {"a": ([(10, 10), (40, 20)], []), "b": ([(30, 30)], []), "c": ([], [(50, 50)])}
    )


@pytest.fixture
def bright(spot_model: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A model that marks what is brighter than a level: at 128 the middle of a target and clutter, at 95 whole targets
    and clutter, at 200 the middle of a target alone, at 250 nothing."""

    def write(level: float, name: str = "", provenance: Mapping[str, object] = {}, **fields: object) -> Path:
        model = load_model(spot_model(**fields))
        mean = next(node for node in model.graph.node if node.output[0] == "mean")
        value = next(a for a in mean.attribute if a.name.startswith("value"))
        if value.name == "value":
            value.t.CopyFrom(numpy_helper.from_array(np.array([level], np.float32)))
        else:
            value.f, value.floats[:] = level, [level] if value.floats else []
        contract = read_contract(model).with_provenance(detector=f"bright{level:g}", **provenance)
        embed_contract(model, contract)
        save_model(path := tmp_path / (name or f"bright{level:g}.onnx"), model)
        return path

    return write


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write_box_model(tmp_path / "boxes.onnx")


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Comparison]:
    """`compare_models` with one short round, answers under the test's folder."""

    def run(models: Sequence[Path], data: Path | str, **settings: object) -> Comparison:
        settings = {"schedule": (1, 1, 0), "folder": tmp_path / "answers"} | settings
        return compare_models(models, str(data), command="here", **settings)

    return run
