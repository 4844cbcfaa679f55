"""Does the exported graph still compute what the trained module computes?"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto
from torch import nn

from irforge.artifact import save_model
from irforge.contract import Contract, Range
from irforge.detections import Detections
from irforge.errors import CheckFailed
from irforge.runtime.backends.ort import OrtSession
from irforge.runtime.pairing import FLOOR, pair_detections

Array = npt.NDArray[np.generic]

TOLERANCE = 1e-4
"""Largest difference of a probability between the torch module and the exported FP32 graph."""

BOX_TOLERANCE = 0.05
"""Largest difference of a box edge, in pixels."""


def sample_frames(contract: Contract, height: int, width: int, seed: int = 0) -> npt.NDArray[np.generic]:
    """Four frames N x C x H x W at the graph's door: a one-pixel target on a dark sky, small targets on clouds, noise
    over all levels, and a constant frame."""
    spec = contract.input
    rng = np.random.default_rng(seed)
    top = 255.0 if spec.door == "uint8" else float(2**spec.bit_depth - 1)
    rows, columns = np.mgrid[:height, :width]
    sky = 0.2 + 0.02 * rng.standard_normal((height, width))
    sky[height // 2, width // 3] = 1.0
    clouds = 0.45 + 0.25 * np.sin(rows / 17.0) * np.cos(columns / 23.0) + 0.02 * rng.standard_normal((height, width))
    for _ in range(4):
        row, column = rng.integers(1, height - 2), rng.integers(1, width - 2)
        clouds[row - 1 : row + 2, column - 1 : column + 2] += 0.4
    frames = np.stack([sky, clouds, rng.random((height, width)), np.full((height, width), 0.5)])
    levels = np.rint(np.clip(frames, 0, 1) * top)[:, None].repeat(spec.channels, axis=1)
    return np.asarray(levels, spec.door)


def largest_difference(model: ModelProto, deployable: nn.Module, contract: Contract) -> dict[str, float]:
    """Largest absolute difference of each output between ONNX Runtime and torch, both FP32 on the CPU.

    A model of dynamic size is run at its smallest and its tuned size. Boxes are compared with their partners, not slot
    by slot: rounding decides the order of equal scores.

    Raises:
        CheckFailed: an output is not finite, or differs by more than `TOLERANCE`, boxes by more than `BOX_TOLERANCE`.
    """
    worst = {tensor.name: 0.0 for tensor in contract.output.tensors}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_model(path, model)
        with OrtSession(path) as session:
            for height, width in _sizes(contract):
                frames = sample_frames(contract, height, width)
                with torch.no_grad():
                    result = deployable(torch.from_numpy(frames))
                tensors = [result] if isinstance(result, torch.Tensor) else list(result)
                expected = {name: tensor.numpy() for name, tensor in zip(worst, tensors, strict=True)}
                found = session.run({contract.input.name: frames})
                for name, difference in differences(expected, found, contract).items():
                    # A NaN must not lose the comparison.
                    worst[name] = difference if not difference <= worst[name] else worst[name]
    _require(worst, "the exported graph", "torch")
    return worst


def difference_of_models(before: ModelProto, after: ModelProto, contract: Contract) -> dict[str, float]:
    """Largest absolute difference of each output between two graphs of one contract, in ONNX Runtime on the CPU.

    Raises:
        CheckFailed: as `largest_difference`.
    """
    height, width = _sizes(contract)[-1]
    feeds = {contract.input.name: sample_frames(contract, height, width)}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for model in (before, after):
            path = Path(folder) / "model.onnx"
            save_model(path, model)
            with OrtSession(path) as session:
                results.append(session.run(feeds))
    expected, found = results
    worst = differences(expected, found, contract)
    _require(worst, "the rewritten graph", "the original")
    return worst


def differences(expected: Mapping[str, Array], found: Mapping[str, Array], contract: Contract) -> dict[str, float]:
    """Largest absolute difference of each output of some frames.

    A box without a partner, and a class that differs, count in the scores: by how far the box stands above the lowest
    of the other answer, which is 0 unless that has all its slots filled. Those that score less than a tenth of the
    threshold do not count: on a plain frame rounding alone decides where faint maxima lie.
    """
    if contract.output.kind == "mask":
        pairs = {
            name: (np.asarray(found[name], np.float32), np.asarray(expected[name], np.float32)) for name in expected
        }
        return {name: float(np.abs(one - other).max()) for name, (one, other) in pairs.items()}
    worst = dict.fromkeys(expected, 0.0)
    least = FLOOR * contract.output.score_threshold
    for one, other in zip(_answers(expected), _answers(found), strict=True):
        if not all(np.isfinite(part).all() for part in (one.boxes, one.scores, other.boxes, other.scores)):
            return dict.fromkeys(expected, math.nan)
        pairing = pair_detections(one, other)
        seen = one.scores[pairing.one] >= least
        moved = np.abs(one.boxes[pairing.one] - other.boxes[pairing.other])[seen]
        lone, others = one.scores[pairing.only_one], other.scores[pairing.only_other]
        changes = (
            np.abs(one.scores[pairing.one] - other.scores[pairing.other]),
            lone[lone >= least] - other.scores.min(initial=1.0),
            others[others >= least] - one.scores.min(initial=1.0),
        )
        worst["boxes"] = max(worst["boxes"], float(moved.max(initial=0.0)))
        worst["scores"] = max(worst["scores"], *(float(change.max(initial=0.0)) for change in changes))
    return worst


def _answers(outputs: Mapping[str, Array]) -> Iterator[Detections]:
    for boxes, scores, classes in zip(outputs["boxes"], outputs["scores"], outputs["classes"], strict=True):
        yield Detections(np.asarray(boxes, np.float32), np.asarray(scores, np.float32), np.asarray(classes, np.int64))


def _require(worst: dict[str, float], one: str, other: str) -> None:
    for name, difference in worst.items():
        limit = BOX_TOLERANCE if name == "boxes" else TOLERANCE
        if not difference <= limit:
            raise CheckFailed(
                f"output '{name}' of {one} differs by {difference:.3g} from {other} (limit {limit:g})",
                "This is a defect of irforge, not of the model: nothing was written",
            )


def _sizes(contract: Contract) -> list[tuple[int, int]]:
    spec = contract.input
    if isinstance(spec.height, Range) and isinstance(spec.width, Range):
        return [(spec.height.min, spec.width.min + spec.width.multiple), spec.size]
    return [spec.size]
