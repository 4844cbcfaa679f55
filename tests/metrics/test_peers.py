"""The pixel metrics beside an independent implementation, PyIRSTDMetrics (MIT), where both define the same thing.

It wants an older NumPy than this project: run this file in an environment that has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irforge.metrics import PixelMetrics

peer = pytest.importorskip("py_irstd_metrics", reason="PyIRSTDMetrics is not installed here")

Pair = tuple[Any, Any]


def damaged(mask: Any, random: np.random.Generator) -> Any:
    """A plausible prediction: the mask moved, dimmed where a target is lost, with some false alarms."""
    moved = np.roll(mask, tuple(random.integers(-2, 3, 2)), (0, 1)).astype(np.float32) * np.float32(0.9)
    height, width = mask.shape
    for _ in range(int(random.integers(0, 5))):
        row, column = int(random.integers(0, height - 6)), int(random.integers(0, width - 6))
        patch = slice(row, row + int(random.integers(1, 6))), slice(column, column + int(random.integers(1, 6)))
        moved[patch] = random.choice([0.3, 0.7])
    return moved


def drawn() -> Iterator[Pair]:
    random = np.random.default_rng(0)
    for _ in range(200):
        mask = np.zeros((64, 80), np.bool_)
        for _ in range(int(random.integers(1, 4))):
            row, column = int(random.integers(0, 56)), int(random.integers(0, 72))
            mask[row : row + int(random.integers(1, 7)), column : column + int(random.integers(1, 7))] = True
        yield damaged(mask, random), mask


def real() -> Iterator[Pair]:
    from irforge.datasets import open_dataset

    root = os.environ.get("IRFORGE_DATA", "")
    if not root or not (Path(root) / "sirst_v2").is_dir():
        pytest.skip("SIRST-V2 is not under IRFORGE_DATA")
    random = np.random.default_rng(1)
    for sample in open_dataset("sirst_v2:nuaa_50_50_test"):
        mask = sample.mask()
        yield damaged(mask, random), mask


@pytest.mark.parametrize("source", [drawn, real], ids=["drawn", "sirst_v2"])
def test_iou_pd_and_fa_agree(source: Any) -> None:
    ours, legacy = PixelMetrics(), PixelMetrics(legacy=True)
    handlers = {name: peer.IoUHandler(with_binary=True, sample_based=name == "niou") for name in ("iou", "niou")}
    pixels, targets = peer.CMMetrics(metric_handlers=handlers), peer.ProbabilityDetectionAndFalseAlarmRate()
    disputed = 0
    for prediction, mask in source():
        found = ours.update(prediction, mask)
        # Where a target has two predictions in range, or the reverse, the peer takes the first, and we the nearest.
        disputed += found.pairs != legacy.update(prediction, mask).pairs
        pixels.update(prediction, mask)
        targets.update(prediction, mask)
    result, other = ours.result(), {name: float(part["binary"]) for name, part in pixels.get().items()}
    assert (result.iou, result.niou) == (pytest.approx(other["iou"]), pytest.approx(other["niou"]))
    rates = targets.get()
    slack = disputed / result.true_targets
    assert result.pd == pytest.approx(float(rates["probability_detection"][0]), abs=slack + 1e-12)
    assert result.fa == pytest.approx(float(rates["false_alarm"][0]), abs=25 * disputed / result.pixels + 1e-12)
