"""A tiny deployable that gives boxes: four convolutions, peaks by max pooling, the best by TopK; and frames for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from irforge.artifact import embed_contract, save_model
from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, Provenance, Squash, TensorSpec

SLOTS = 6
CHANNELS = 8


def box_contract(size: tuple[int, int] = (64, 64), **provenance: object) -> Contract:
    """For frames whose size is not changed; a target scores more than 0.5."""
    height, width = size
    shapes = {"boxes": ["N", SLOTS, 4], "scores": ["N", SLOTS], "classes": ["N", SLOTS]}
    types = {"classes": "int64"}
    return Contract(
        input=InputSpec(height=height, width=width, fit=Squash(), normalization=Normalization(mean=90, std=40)),
        output=OutputSpec(
            kind="boxes",
            classes=["target"],
            score_threshold=0.5,
            tensors=[
                TensorSpec(name=name, dtype=types.get(name, "float32"), shape=shape, meaning=name)
                for name, shape in shapes.items()
            ],
        ),
        provenance=Provenance(detector="peaks", **provenance),
    )


def write_box_model(
    path: Path, size: tuple[int, int] = (64, 64), *, bias: float = 0.0, shift: float = 0.0, **provenance: object
) -> Path:
    """Write the deployable. A target of `box_frame` gets a box of about 3 x 3 pixels around it.

    `bias` is added to all logits and `shift` to all boxes, for a detector that is a little, or very, wrong.
    """
    height, width = size
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for name, outs, ins in (("first", CHANNELS, 1), ("second", CHANNELS, CHANNELS), ("third", CHANNELS, CHANNELS)):
        kernel = random.uniform(0, 0.02, (outs, ins, 3, 3))
        kernel[np.arange(outs), np.arange(outs) % ins, 1, 1] += random.uniform(0.5, 1.5, outs)
        weights[name] = kernel
    weights["head"] = np.stack([np.full((CHANNELS, 1, 1), 0.35), np.full((CHANNELS, 1, 1), 0.01)])
    weights["head_bias"] = np.array([bias - 4, 1.25])
    weights |= {"mean": np.array(90.0), "std": np.array(40.0), "shift": np.array(shift), "centre": np.array(0.5)}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    integers = {"flat": [0, -1], "slots": [SLOTS], "width": width, "zero": 0, "last": [2]}
    constants += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()]
    steps = [
        ("Cast", "frames", "levels", {"to": TensorProto.FLOAT}),
        ("Sub", "levels mean", "centred", {}),
        ("Div", "centred std", "pixels", {}),
        ("Conv", "pixels first", "one", {"pads": [1] * 4}),
        ("Relu", "one", "one_on", {}),
        ("Conv", "one_on second", "two", {"pads": [1] * 4}),
        ("Relu", "two", "two_on", {}),
        ("Conv", "two_on third", "three", {"pads": [1] * 4}),
        ("Relu", "three", "three_on", {}),
        ("Conv", "three_on head head_bias", "maps", {}),
        ("Split", "maps", "logits halves", {"axis": 1, "num_outputs": 2}),
        ("Sigmoid", "logits", "heat", {}),
        ("MaxPool", "heat", "highest", {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("Equal", "heat highest", "is_peak", {}),
        ("Cast", "is_peak", "peak", {"to": TensorProto.FLOAT}),
        ("Mul", "heat peak", "peaks", {}),
        ("Reshape", "peaks flat", "row", {}),
        ("TopK", "row slots", "scores places", {}),
        ("Reshape", "halves flat", "half_row", {}),
        ("GatherElements", "half_row places", "half", {"axis": 1}),
        ("Div", "places width", "line", {}),
        ("Mod", "places width", "column", {}),
        *((("Cast", source, f"{source}_f", {"to": TensorProto.FLOAT})) for source in ("line", "column")),
        *(("Add", f"{source}_f centre", f"{source}_c", {}) for source in ("line", "column")),
        *(("Add", f"{source}_c shift", f"{source}_s", {}) for source in ("line", "column")),
        *(("Sub", f"{source}_s half", f"{source}_low", {}) for source in ("line", "column")),
        *(("Add", f"{source}_s half", f"{source}_high", {}) for source in ("line", "column")),
        *(
            ("Unsqueeze", f"{edge} last", f"{edge}_u", {})
            for edge in ("column_low", "line_low", "column_high", "line_high")
        ),
        ("Concat", "column_low_u line_low_u column_high_u line_high_u", "boxes", {"axis": 2}),
        ("Mul", "places zero", "classes", {}),
    ]
    nodes = [
        helper.make_node(kind, ins.split(), outs.split(), name=f"node_{outs.split()[0]}", **attributes)
        for kind, ins, outs, attributes in steps
    ]
    types = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "classes": TensorProto.INT64}
    contract = box_contract(size, **provenance)
    graph = helper.make_graph(
        nodes,
        "peaks",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 1, height, width])],
        [helper.make_tensor_value_info(t.name, types[t.name], t.shape) for t in contract.output.tensors],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    embed_contract(model, contract)
    save_model(path, model)
    return path


def box_frame(*targets: tuple[int, int], size: tuple[int, int] = (64, 64), level: int = 220) -> np.ndarray:
    """Gray of level 90 with targets of 3 x 3 pixels, brightest in the middle, from (x, y) on."""
    frame = np.full(size, 90, np.uint8)
    for x, y in targets:
        frame[y : y + 3, x : x + 3] = 100
        frame[y + 1, x + 1] = level
    return frame


def write_box_data(folder: Path, frames: dict[str, list[tuple[int, int]]], level: int = 220) -> Path:
    """A dataset of frames and masks; targets from (x, y) on, 3 x 3 pixels."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, targets in frames.items():
        frame = box_frame(*targets, level=level)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), frame)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), np.where(frame > 90, 255, 0).astype(np.uint8))
    return folder
