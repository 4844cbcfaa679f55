"""Promises of the warnings: frames of the test that training saw, by content and by their looks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.contract import DataNote
from irforge.datasets import open_dataset
from irforge.runtime.comparison.entry import Entry
from irforge.runtime.comparison.recurrence import MOST_FRAMES, looks, recurrence, signs, spaced
from irforge.runtime.comparison.training import check_training, list_name
from tests.box_model import box_contract


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A landscape: smooth random shapes on a slope, 8 bits."""
    random = np.random.default_rng(seed)
    coarse = cv2.resize(random.normal(0, 25, (9, 12)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + np.linspace(60, 140, size[0])[:, None] + random.normal(0, 2, size), 0, 255).astype(np.uint8)


def with_target(frame: np.ndarray, x: int, y: int) -> np.ndarray:
    other = frame.copy()
    other[y : y + 3, x : x + 3] = 250
    return other


def note(name: str, split: str) -> DataNote:
    return DataNote(name=name, split=split, frames=1, licence="")


def entry(name: str, *trained: DataNote, parameters: int | None = 10**6, held: tuple[DataNote, ...] = ()) -> Entry:
    contract = box_contract(trained_on=list(trained), validated_on=list(held))
    return Entry(name, Path(name), contract, lambda: None, parameters, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """`nights:test` shares frame s2 with `nights:train`, which also holds the scene of s1 with another target."""
    root = tmp_path / "nights"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    frames = {f"s{i}": with_target(scene(i), 20, 30) for i in range(5)} | {"again": with_target(scene(1), 70, 60)}
    for name, frame in frames.items():
        cv2.imwrite(str(root / "images" / f"{name}.png"), frame)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), np.where(frame == 250, 255, 0).astype(np.uint8))
    (root / "test.txt").write_text("s0\ns1\ns2")
    (root / "train.txt").write_text("s2\ns3\ns4\nagain")
    (root / "other.txt").write_text("s3\ns4")
    return root


def test_signs_survive_gain_and_a_target_and_tell_scenes_apart() -> None:
    frame = scene(7)
    darker = (frame * 0.5 + 10).astype(np.uint8)
    assert np.mean(signs(frame) != signs(with_target(frame, 50, 50))) < 0.05
    assert np.mean(signs(frame) != signs(darker)) < 0.1
    assert min(np.mean(signs(frame) != signs(scene(seed))) for seed in range(20, 40)) > 0.25


def test_plain_skies_are_not_taken_for_each_other() -> None:
    random = np.random.default_rng(0)
    slopes = [
        np.linspace(40, 200, 128)[:, None] * np.ones((1, 160)) + random.normal(0, 1, (128, 160)) for _ in range(6)
    ]
    found = [signs(np.rint(sky).astype(np.uint8)) for sky in slopes]
    assert min(np.mean(a != b) for i, a in enumerate(found) for b in found[:i]) > 0.3


def test_a_shared_frame_and_a_recurring_scene_are_told_in_a_line_each(data: Path) -> None:
    test = open_dataset(data, split="test")
    trained = entry("a.onnx", note("nights", "train-train"), held=(note("nights", "train-val"),))
    models = [trained, entry("b.onnx", note("nights", "train"))]
    found = check_training(models, test, data.parent)
    saw = "a.onnx and b.onnx saw 1 of 3 frames in training, in nights:train"
    assert found.seen == {2}
    assert [(f.level, f.text) for f in found.findings] == [
        ("bad", f"{saw}: on them nothing is tested. --unseen leaves them out."),
        (
            "caution",
            "nights:train, which trained a.onnx and b.onnx, holds near repeats of 1 of these 3 frames: of s1 in again,"
            " for example.",
        ),
    ]
    left = check_training(models, test, data.parent, left_out=True).findings
    assert (left[0].level, left[0].text) == ("note", f"{saw}: they are left out for all.")
    assert "1 of these 2 frames: of s1 in again" in left[1].text
    # What is left out recurs nowhere, whatever else looks like it.
    (data / "twin.txt").write_text("s2\nagain")
    (data / "seen.txt").write_text("s1")
    both = [entry("a.onnx", note("nights", "twin")), entry("b.onnx", note("nights", "seen"))]
    texts = [f.text for f in check_training(both, test, data.parent, left_out=True).findings]
    assert len(texts) == 2 and all("left out for all" in text for text in texts)


def test_clean_training_is_silent_and_what_is_not_known_is_said(data: Path) -> None:
    test = open_dataset(data, split="test")
    clean, filter_ = entry("clean.onnx", note("nights", "other")), entry("mpcm.safetensors", parameters=0)
    assert check_training([clean, filter_], test, data.parent).findings == ()
    absent, silent = entry("away.onnx", note("secret", "train-train")), entry("adopted.onnx")
    texts = [f.text for f in check_training([absent, silent], test, data.parent).findings]
    assert texts[0].startswith("secret:train, which trained away.onnx, is not here")
    assert texts[1].startswith("adopted.onnx does not say what trained it")


def test_a_list_that_is_not_here_is_known_by_its_name(data: Path, tmp_path: Path) -> None:
    test = open_dataset(data, split="test")
    cheat = entry("cheat.onnx", note("Nights", "test-train"))
    (found,) = check_training([cheat], test, tmp_path / "images").findings
    assert found.level == "bad" and found.text == "cheat.onnx saw this very list, Nights:test, in training."


def test_frames_of_one_video_need_less_to_be_alike(data: Path) -> None:
    one, other = (looks(open_dataset(data, split=split), range(2)) for split in ("test", "other"))
    assert recurrence(one, other, 2).near == ()
    mixed = other[0].signs.copy()
    mixed[: int(0.2 * len(mixed))] ^= True
    twin = one[0].__class__("s9", "s", "another", mixed)
    stranger = one[0].__class__("night9", "night", "another", mixed)
    assert [row for row, _ in recurrence([stranger, twin], other, 2).near] == [1]


def test_names_of_lists_lose_what_training_added() -> None:
    assert list_name(note("nudt_sirst", "train-val")) == "nudt_sirst:train"
    assert list_name(note("sirst_v2", "trainval_full-train")) == "sirst_v2:trainval_full"
    assert list_name(note("x", "train")) == "x:train"


def test_a_huge_list_is_sampled_from_end_to_end() -> None:
    rows = spaced(100_000)
    assert len(rows) == MOST_FRAMES and (rows[0], rows[-1]) == (0, 99_999)
