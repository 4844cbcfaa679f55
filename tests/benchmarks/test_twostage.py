"""The two-stage benchmark: its random weights find something, and its tables say what was measured and no more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import twostage_cases, twostage_parts, twostage_table
from benchmarks.settled import scene, settled_network, squares
from irforge.train.detectors.twostage.deploy import detect

TINY: dict[str, Any] = {
    "class_count": 3,
    "depth": 18,
    "pyramid": False,
    "anchor_sizes": [8, 16, 32],
    "candidates": 60,
    "proposals": 8,
}


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_settled_weights_find_boxes_of_different_scores(norm: str) -> None:
    network = settled_network("faster-rcnn", TINY | {"norm": norm}, (64, 96))
    assert not network.training
    with torch.no_grad():
        levels, _ = network(scene((64, 96)))
        boxes, scores, _ = detect(network, scene((64, 96)))
    found = scores[0] > 0
    assert found.sum() > 3 and scores[0][found].unique().numel() > 3 and boxes[0][found].unique(dim=0).shape[0] > 3
    assert 0.1 < levels[0].std() < 10


def test_objects_lie_inside_the_frame() -> None:
    for size in ((800, 1216), (256, 320)):
        assert all(0 <= y0 < y1 <= size[0] and 0 <= x0 < x1 <= size[1] for y0, x0, y1, x1 in squares(size))


def test_macs_are_those_of_the_publications() -> None:
    """CLIP ViT-B/32's image tower has 4.41 GMAC a crop."""
    assert twostage_parts.count_macs(["clip-vit-b-32"])["clip-vit-b-32"] == pytest.approx(4.41e9, rel=0.002)


def test_tables_hold_the_parts_that_were_measured() -> None:
    figures = {"seconds": [3.0, 1.0, 2.0], "peak_bytes": 512 * 2**20, "trained": 12_300_000}
    text = twostage_table.tables({"train": {"environment": {}, "small": figures}})
    assert text.splitlines() == [
        "| one training step | size | trained parameters | s | peak memory, MiB |",
        "|---|---|---|---|---|",
        "| GLMD-CA, ResNet-18 | 256x320 | 12.3 M | 2.00 | 512 |",
    ]
    on_gpu = {"seconds": [1.0], "peak_device_bytes": 2**30, "trained": 1_000_000}
    assert "| 1.00 | 1024 |" in twostage_table.tables({"train": {"full": on_gpu}})
    macs = {"full": 400e9, "small": 8e9, "clip-vit-b-32": 4e9, "clip-vit-l-14-336": 200e9, "efficientnet-lite0": 2e9}
    lines = twostage_table.tables({"macs": macs}).splitlines()
    assert lines[4] == "| CLIP ViT-B/32, a crop each |  | 4.0 | 0.05, 0.1, 0.2, 1 |"
    assert lines[6].endswith("| 2.0 | 0.005, 0.005, 0.005, 0.005 |")
    assert twostage_table.tables({}) == ""


def test_a_measurement_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = twostage_cases.alone(twostage_parts.count_macs, [])
    assert set(found) == {"peak_bytes"} and found["peak_bytes"] > 50 * 2**20


def test_the_first_call_is_not_timed() -> None:
    calls: list[int] = []
    assert len(twostage_cases.timed(lambda: calls.append(1), rounds=3)) == 3 and len(calls) == 4
