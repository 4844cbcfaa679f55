"""Evaluation scores what the deployable returns, by the protocol that is named beside the figure."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.contract import Contract, InputSpec, Normalization, Provenance, Squash
from irforge.datasets import open_dataset
from irforge.errors import ArtifactError, InputError, UsageError
from irforge.tiles import in_tiles
from irforge.train.checkpoint import save_checkpoint
from irforge.train.detectors.base import Deployable
from irforge.train.detectors.itd.deploy import ITD
from irforge.train.detectors.mshnet.deploy import MSHNET
from irforge.train.detectors.mshnet.network import MSHNet
from irforge.train.evaluate import evaluate, refuse_shared_names
from irforge.train.evaluation import evaluate as evaluate_any
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


class Peaks(Bright):
    """Boxes of 4x4 pixels around the brightest pixel, if it exceeds 150."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        self.shapes.append(tuple(frames.shape))
        plane = frames[0, 0].float()
        y, x = divmod(int(plane.argmax()), plane.shape[1])
        score = 0.9 if plane.max() > 150 else 0.0
        box = torch.tensor([x - 1, y - 1, x + 3, y + 3]).float()
        return box.view(1, 1, 4), torch.full((1, 1), score), torch.zeros(1, 1, dtype=torch.int64)


def tiled_contract(kind: str) -> Contract:
    output = ITD.output(0.5) if kind == "boxes" else MSHNET.output(0.5)
    return in_tiles(Contract(input=SPEC, output=output, provenance=Provenance(detector="test")), 12)


def test_tiles_are_scored_as_whole_frames(tmp_path: Path) -> None:
    data = open_dataset(odd_data(tmp_path / "odd"))
    masks = Bright()
    found = evaluate_any(masks, tiled_contract("mask"), data, "tile")
    # 40x52 in tiles of 32 at rows 0 and 8, columns 0 and 20: the target lies in four of them.
    assert masks.shapes == [(1, 1, 32, 32)] * 4
    assert found.full["pixels"] == 40 * 52 and found.named["IoU"] == found.named["Pd"] == 1


def test_a_target_that_several_tiles_see_is_one_box(tmp_path: Path) -> None:
    data = odd_data(tmp_path / "odd")
    frame = cv2.imread(str(data / "images" / "a.png"), cv2.IMREAD_UNCHANGED)
    # In what counts of two tiles, one above the other.
    frame[20:24, 40:44] = 90
    frame[18:22, 40:44] = 200
    frame[19, 41] = 240
    mask = np.where(frame > 150, 255, 0).astype(np.uint8)
    cv2.imwrite(str(data / "images" / "a.png"), frame)
    cv2.imwrite(str(data / "masks" / "a.png"), mask)
    boxes = Peaks()
    found = evaluate_any(boxes, tiled_contract("boxes"), open_dataset(data), "tile")
    assert boxes.shapes == [(1, 1, 32, 32)] * 4
    assert found.named["F1 at IoU 0.5"] == 1 and found.named["false boxes a frame"] == 0


def test_the_command_says_how_frames_were_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    checkpoint = tmp_path / "a.safetensors"
    contract = Contract(input=SPEC, output=MSHNET.output(0.25), provenance=Provenance(detector="mshnet"))
    save_checkpoint(checkpoint, MSHNet(1), contract)
    data = odd_data(tmp_path / "odd")
    evaluate(checkpoint, [str(data)], tile=12, json=tmp_path / "out.json", save_maps=tmp_path / "maps")
    (row,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert (row["protocol"], row["tile"], row["overlap"], row["tiles_a_frame"]) == ("tile", [32, 32], 12, [4, 4])
    _, cut, line = capsys.readouterr().out.splitlines()
    assert "each frame in 4 tiles of 32x32 that overlap by 12 pixels" in cut and line.split()[2] == "tile"
    (saved,) = (tmp_path / "maps").rglob("a.png")
    assert cv2.imread(str(saved), cv2.IMREAD_UNCHANGED).shape == (40, 52)
    with pytest.raises(UsageError, match="cannot overlap by 17 pixels"):
        evaluate(checkpoint, [str(data)], tile=17)
    with pytest.raises(UsageError, match="either cut"):
        evaluate(checkpoint, [str(data)], tile=12, protocol="native")
