"""A detector that gives boxes, exported and compiled, held against itself in torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from irforge.artifact import save_model
from irforge.calib.half import half_model
from irforge.contract import Contract
from irforge.export.convert import onnx_from_torch
from irforge.runtime.backends.ort import OrtSession
from irforge.train.detectors.base import Deployable

UNSTABLE = {"NonZero", "NonMaxSuppression", "GatherND", "ScatterND", "Loop", "If", "Scan"}
"""Operators whose output's size, or whose work, depends on values."""


def frames_of(size: tuple[int, int], count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, *size), dtype=np.uint8)


def held_equal(deployable: Deployable, contract: Contract, folder: Path) -> Path:
    """Export; ONNX Runtime finds what torch finds, within 0.05 px and 1e-4; returns the file."""
    path = folder / "model.onnx"
    model, _ = onnx_from_torch(deployable.eval(), contract)
    assert UNSTABLE.isdisjoint(node.op_type for node in model.graph.node)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    save_model(path, model)
    frames = frames_of((contract.input.height, contract.input.width), seed=3)
    with torch.no_grad():
        boxes, scores, classes = deployable(torch.from_numpy(frames))
    assert (scores > 0).sum(1).min() > 5
    with OrtSession(path) as session:
        found = session.run({"frames": frames})
    assert np.abs(found["scores"] - scores.numpy()).max() < 1e-4
    assert np.abs(found["boxes"] - boxes.numpy()).max() < 0.05
    assert np.array_equal(found["classes"], classes.numpy())
    return path


def passes_the_compiler_in_fp32_and_fp16(path: Path) -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    from irforge.runtime.engines import compile_gate

    half = path.with_suffix(".fp16.onnx")
    half_model(path, half)
    shares = [compile_gate(model, ("8.9",)).proofs[0].share("fp16", writes=False) for model in (path, half)]
    assert shares[0] == 0 and shares[1] > 0.95
