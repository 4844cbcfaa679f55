"""Evaluation scores what the deployable returns, by the protocol that is named beside the figure."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.contract import InputSpec, Normalization, Squash
from irforge.datasets import open_dataset
from irforge.errors import ArtifactError, InputError, UsageError
from irforge.train.checkpoint import save_checkpoint
from irforge.train.detectors.base import Deployable
from irforge.train.detectors.mshnet.network import MSHNet
from irforge.train.evaluate import evaluate, refuse_shared_names
from irforge.train.evaluation import evaluate_masks, mask_figures, protocol_spec, save_map

SPEC = InputSpec(height=32, width=32, fit=Squash(), normalization=Normalization(mean=100, std=30))


class Bright(Deployable):
    """Probability 1 where the level exceeds 150."""

    stride = 16

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Identity()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.shapes.append(tuple(frames.shape))
        return (frames > 150).float()


def test_a_perfect_detector_scores_one(small_data: Path) -> None:
    result = evaluate_masks(Bright(), SPEC, open_dataset(f"{small_data}:train"))
    assert (result.iou, result.niou, result.pd, result.fa, result.frames) == (1, 1, 1, 0, 12)


def odd_data(root: Path) -> Path:
    """One frame of 40x52 with a target of 4x4 pixels."""
    frame, mask = np.full((40, 52), 90, np.uint8), np.zeros((40, 52), np.uint8)
    frame[20:24, 40:44] = 240
    mask[20:24, 40:44] = 255
    for folder, plane in (("images", frame), ("masks", mask)):
        (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / folder / "a.png"), plane)
    return root


def test_native_pads_to_the_stride_and_scores_the_frames_own_pixels(tmp_path: Path) -> None:
    detector = Bright()
    result = evaluate_masks(detector, SPEC, open_dataset(odd_data(tmp_path / "odd")), "native")
    assert detector.shapes == [(1, 1, 48, 64)]
    assert (result.iou, result.pixels, result.union) == (1, 40 * 52, 16)


def test_squash_scores_at_the_contracts_size(tmp_path: Path) -> None:
    detector = Bright()
    result = evaluate_masks(detector, SPEC, open_dataset(odd_data(tmp_path / "odd")), "squash")
    assert detector.shapes == [(1, 1, 32, 32)]
    assert result.pixels == 32 * 32 and result.pd == 1


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="squash, native"):
        protocol_spec(SPEC, "crop", 16)


def test_frames_without_masks_cannot_be_scored(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    with pytest.raises(InputError, match="no mask"):
        evaluate_masks(Bright(), SPEC, open_dataset(tmp_path))


def test_a_figure_that_does_not_exist_is_a_dash(tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    for folder in ("images", "masks"):
        (blank / folder).mkdir(parents=True)
        cv2.imwrite(str(blank / folder / "a.png"), np.zeros((32, 32), np.uint8))
    empty = evaluate_masks(Bright(), SPEC, open_dataset(blank))
    found = mask_figures(empty)
    assert found.table == {"IoU": "-", "nIoU": "-", "Pd": "-", "Fa e-6": "0.00"}
    assert found.named == {"Fa": 0.0}


def test_the_command_prints_and_writes_the_same_figures(
    tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from irforge.contract import Contract, Provenance
    from irforge.train.detectors.mshnet.deploy import MSHNET

    torch.manual_seed(0)
    contract = Contract(input=SPEC, output=MSHNET.output(0.25), provenance=Provenance(detector="mshnet"))
    save_checkpoint(tmp_path / "a.safetensors", MSHNet(1), contract)
    evaluate(tmp_path / "a.safetensors", [f"{small_data}:train"], json=tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [row["protocol"] for row in written] == ["squash", "native"]
    assert {row["threshold"] for row in written} == {0.25}
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[3:6] == ["IoU", "nIoU", "Pd"]
    assert [line.split()[3] for line in lines] == [f"{row['iou']:.4f}" for row in written]


def test_saved_maps_are_the_probabilities_to_16_bits(tmp_path: Path) -> None:
    maps = np.array([[0.0, 0.25], [0.7, 1.0]], np.float32)
    save_map(tmp_path / "a.png", maps)
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16 and np.abs(read / 65535 - maps).max() < 1e-5
    for wrong in (np.float32("nan"), np.float32(1.5), np.float32(-0.1)):
        with pytest.raises(ArtifactError, match="no map of probabilities"):
            save_map(tmp_path / "b.png", np.where(maps == 0.25, wrong, maps))
    assert not (tmp_path / "b.png").exists()


def test_maps_of_two_frames_are_never_one_file(tmp_path: Path) -> None:
    one, other = (open_dataset(odd_data(tmp_path / name / "odd")) for name in ("one", "other"))
    refuse_shared_names([one, one])
    with pytest.raises(UsageError, match="would be one file"):
        refuse_shared_names([one, other])
