"""Promises of `irforge data`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.data import data
from irforge.datasets import open_dataset
from irforge.datasets.listing import open_splits
from irforge.datasets.overlap import shared_names
from irforge.errors import CheckFailed, InputError, UsageError


def picture(path: Path, seed: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(80, 121, (side, side)).astype(np.uint8))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root: frames with masks and two lists, a COCO set of two splits, and a folder without frames."""
    monkeypatch.setenv("COLUMNS", "80")
    mask = np.zeros((32, 32), np.uint8)
    mask[4:7, 4:7] = 255
    for index in range(4):
        picture(tmp_path / "masks_set" / "images" / f"f{index}.png", index)
        (tmp_path / "masks_set" / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "masks_set" / "masks" / f"f{index}.png"), mask * (index < 3))
    for split, names in (("train", ("f0", "f1", "f2")), ("test", ("f2", "f3"))):
        (tmp_path / "masks_set" / f"{split}.txt").write_text("\n".join(names))
        write_coco(tmp_path / "drone_ir", split, seed=len(names))
    (tmp_path / "clips").mkdir()
    return tmp_path


def write_coco(folder: Path, split: str, seed: int, **changes: Any) -> None:
    picture(folder / "stills" / f"{split}.png", seed)
    content = {
        "images": [{"id": 1, "file_name": f"stills/{split}.png", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "drone"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [3, 4, 5, 6]}],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content | changes))


def shown(capsys: pytest.CaptureFixture[str], *arguments: Any, **options: Any) -> str:
    data(*arguments, **options)
    return capsys.readouterr().out


def test_without_a_name_every_set_is_a_row_with_its_licence_below(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = shown(capsys, data_root=root, json_file=tmp_path / "list.json")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["masks_set"][1:] == ["4", "masks", "test", "2,", "train", "3"]
    assert rows["drone_ir"][1:] == ["2", "boxes", "test", "1,", "train", "1"]
    assert rows["clips"][1:4] == ["–", "–", "folder"]
    assert "drone_ir: CC0 1.0" in out and "masks_set: not stated" in out
    assert max(map(len, out.splitlines())) <= 80
    listed = {row["name"]: row for row in json.loads((tmp_path / "list.json").read_text())["datasets"]}
    assert listed["masks_set"]["splits"] == {"test": 2, "train": 3} and "holds no frames" in listed["clips"]["fault"]


def test_a_set_is_described_with_what_its_lists_share(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = shown(capsys, "masks-set", data_root=root, json_file=tmp_path / "set.json")
    assert "masks; targets: 3, frames without one: 1" in out
    assert "32x32 (4)" in out and "8-bit gray (4); highest level 120" in out
    assert "train 1" in out.partition("Shared with")[2]
    content = json.loads((tmp_path / "set.json").read_text())
    assert content["shared_names"] == [{"test": "test", "frames": 2, "train": "train", "shared": 1}]
    (described,) = content["datasets"]
    assert described["targets_per_frame"] == {"0": 1, "1": 3} and described["area"]["bins"] == [[4, 9, 3]]
    assert "Shared with" not in shown(capsys, "masks-set:test", data_root=root)


def test_a_set_that_opens_by_splits_is_described_split_by_split(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "drone_ir", data_root=root)
    assert "drone_ir:test\n" in out and "drone_ir:train\n" in out and out.count("bird 0, drone 1") == 2
    assert "drone_ir:train\n" not in shown(capsys, "drone_ir:test", data_root=root)
    file = root / "drone_ir" / "annotations" / "instances_test.json"
    assert "instances_test:all" in shown(capsys, str(file))


def test_shared_frames_are_shown_and_fail_a_check(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "masks_set:test", overlap=["masks_set:train", "drone_ir"], data_root=root)
    assert "1 of 2 frames of masks_set:test are in masks_set:train\n  f2\n" in out
    # The same noise is there under other names.
    assert "1 of 2 frames of masks_set:test are in drone_ir:test\n  f2 (there stills/test)\n" in out
    assert "1 of 2 frames of masks_set:test are in drone_ir:train\n  f3 (there stills/train)\n" in out
    with pytest.raises(CheckFailed, match="3 faults"):
        data("masks_set:test", check=True, overlap=["masks_set:train", "drone_ir"], data_root=root)
    data("masks_set:train", check=True, data_root=root)


def test_a_check_lists_all_findings_and_fails_on_faults_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(10, 15):
        picture(root / "masks_set" / "masks" / f"f{index}.png", 0)
    few = shown(capsys, "masks_set", data_root=root)
    assert "FAULT: annotation without a frame (5)" in few and "and 2 more: --check lists them" in few
    with pytest.raises(CheckFailed, match="'masks_set' has 5 faults"):
        data("masks_set", check=True, data_root=root)
    assert "masks/f14: belongs to no frame" in capsys.readouterr().out
    box = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [-0.5, 4, 5, 6]}
    write_coco(root / "drone_ir", "test", 3, annotations=[box])
    data("drone_ir:test", check=True, data_root=root)
    assert "note: box beyond its frame (1)" in capsys.readouterr().out


def test_what_cannot_be_opened_is_refused_as_everywhere(root: Path) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [3, 4, 0, 6]}
    write_coco(root / "drone_ir", "test", 3, annotations=[box])
    with pytest.raises(InputError, match="has no area"):
        data("drone_ir", check=True, data_root=root)
    with pytest.raises(UsageError, match="no dataset 'nowhere'"):
        data("nowhere", data_root=root)
    with pytest.raises(UsageError, match="no dataset is named"):
        data(check=True, data_root=root)


def test_the_command_ends_with_one_line_and_its_exit_code(workplace: Any) -> None:
    frame = np.random.default_rng(0).integers(80, 121, (32, 32)).astype(np.uint8)
    for name in ("a", "b"):
        workplace.put(f"clip/{name}.png", frame)
    done = workplace.run("data", "clip", "--check", "--json", "out.json")
    assert done.returncode == 6 and "FAULT: same frame twice (1)" in done.stdout
    assert done.stderr.count("\n") == 1 and "'clip' has 1 fault." in done.stderr
    assert workplace.left() == {"out.json"}
    assert json.loads((workplace.folder / "out.json").read_text())["datasets"][0]["findings"][0]["fault"]


@pytest.mark.skipif("IRFORGE_DATA" not in os.environ, reason="IRFORGE_DATA is not set")
def test_lists_of_sirst_v2_of_different_families_share_frames_and_those_of_one_do_not() -> None:
    dataset = open_dataset("SIRST-V2")
    shared = {(pair.test, pair.train): pair.shared for pair in shared_names(open_splits(dataset))}
    assert shared["test_v1", "trainval_full"] == 57
    assert shared["nuaa_50_50_test", "trainval_full"] == 123
    assert shared["test_full", "trainval_v1"] == 67
    one_family = [(f"test_{name}", f"trainval_{name}") for name in ("full", "v1", "v1fullv2target")]
    assert not {*one_family, ("nuaa_50_50_test", "nuaa_50_50_train"), ("val_full", "train_full")} & set(shared)
