"""Which detections are judged again, and what becomes of them; the encoder is a stub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from irforge.contract import InputSpec, Normalization, PercentileGain, Squash
from irforge.detections import Detections
from irforge.errors import InputError
from irforge.frames.levels import apply_gain
from irforge.rescoring import Rescorer, RescoringSpec, companion_beside, eight_bit, padded_frame

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)


def spec(**fields: Any) -> RescoringSpec:
    given: dict[str, Any] = {
        "method": "clip",
        "classes": ["base", "novel", "other"],
        "columns": [-1, 0, 1],
        "alpha": [0.7, 0.7, 0.7],
        "crop_size": 8,
    }
    return RescoringSpec(**given | fields)


class Ones:
    """Gives every box the score 1 and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, np.ndarray]] = []

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        self.asked.append(feeds)
        return np.ones(len(feeds["scores"]), np.float32)


def detections(*rows: tuple[float, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = np.array([[k, k, k + 10, k + 12] for k in range(len(rows))], np.float32).reshape(-1, 4)
    return boxes, np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows], np.int64)


def rescored(chosen: RescoringSpec, *rows: tuple[float, int]) -> list[float]:
    return Rescorer(chosen, Ones()).rescore(IMAGE, *detections(*rows)).tolist()


def test_only_scores_inside_the_window_change() -> None:
    found = rescored(spec(lower=0.05, upper=0.6), (0.7, 1), (0.6, 1), (0.3, 1), (0.05, 1), (0.01, 1))
    assert found == pytest.approx([0.7, 1, 1, 0.05, 0.01])


def test_classes_without_a_column_or_with_all_the_share_keep_their_score() -> None:
    assert rescored(spec(alpha=[0.7, 1.0, 0.7]), (0.9, 0), (0.8, 1), (0.7, 2)) == pytest.approx([0.9, 0.8, 1])


def test_the_highest_scores_come_first_in_a_limited_frame() -> None:
    encoder = Ones()
    boxes, scores, classes = detections((0.3, 1), (0.9, 2), (0.95, 0), (0.5, 1))
    found = Rescorer(spec(limit=2), encoder).rescore(IMAGE, boxes, scores, classes)
    assert found.tolist() == pytest.approx([0.3, 1, 0.95, 1])
    (feeds,) = encoder.asked
    assert feeds["scores"].tolist() == pytest.approx([0.9, 0.5]) and feeds["classes"].tolist() == [2, 1]
    assert feeds["crops"].shape == (2, 3, 8, 8)


def test_nothing_to_judge_asks_no_encoder() -> None:
    encoder = Ones()
    judge = Rescorer(spec(), encoder)
    assert judge.rescore(IMAGE, *detections()).shape == (0,)
    assert judge.rescore(IMAGE, *detections((0.9, 0), (0.01, 1))).tolist() == pytest.approx([0.9, 0.01])
    assert not encoder.asked


def test_the_scores_that_came_in_are_not_written_to() -> None:
    boxes, scores, classes = detections((0.5, 1))
    Rescorer(spec(), Ones()).rescore(IMAGE, boxes, scores, classes)
    assert scores.tolist() == [0.5]


def test_detections_are_sorted_again_and_held_to_the_threshold() -> None:
    def fixed(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.where(feeds["classes"] == 1, 0.95, 0.2).astype(np.float32)

    boxes, scores, classes = detections((0.9, 0), (0.8, 2), (0.3, 1))
    found = Rescorer(spec(), fixed).apply(Detections(boxes, scores, classes), IMAGE, 0.5)
    assert found.scores.tolist() == pytest.approx([0.95, 0.9]) and found.classes.tolist() == [1, 0]
    assert found.boxes.tolist() == boxes[[2, 0]].tolist()


def test_a_frame_encoder_gets_the_frame_padded_to_its_stride() -> None:
    encoder = Ones()
    chosen = spec(method="pcb", crop_size=None, stride=32, pad_level=127)
    Rescorer(chosen, encoder).rescore(IMAGE, *detections((0.5, 1), (0.4, 2)))
    (feeds,) = encoder.asked
    assert feeds["frame"].shape == (1, 3, 64, 64) and feeds["frame"].dtype == np.uint8
    assert (feeds["frame"][0, :, :40, :50] == IMAGE).all() and (feeds["frame"][0, :, 40:] == 127).all()
    assert feeds["row_weights"].shape == feeds["column_weights"].shape == (2, 2)
    assert padded_frame(IMAGE[:32, :32], 32, 5).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"columns": [0, 1]}, "3 classes with 2 columns"),
        ({"alpha": [0.5, 1.5, 0]}, "share from 0 to 1"),
        ({"stride": 32}, "either crops of a size or frames of a stride"),
        ({"crop_size": None}, "either crops of a size or frames of a stride"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**fields)


def test_frames_that_no_encoder_takes_are_refused() -> None:
    with pytest.raises(InputError, match="uint8 frames"):
        Rescorer(spec(), Ones()).rescore(IMAGE.astype(np.uint16), *detections((0.5, 1)))


def test_deep_frames_are_seen_through_the_contracts_gain() -> None:
    deep = np.random.default_rng(0).integers(2000, 9000, (20, 30)).astype(np.uint16)
    size = {"height": 32, "width": 32, "fit": Squash(), "normalization": Normalization(mean=0, std=1), "bit_depth": 14}
    gain = PercentileGain(low=1, high=99)
    found = eight_bit(deep, InputSpec(gain=gain, **size))
    assert found.dtype == np.uint8 and (found == apply_gain(deep, gain, 14)).all()
    plain = eight_bit(deep, InputSpec(door="float32", **size))
    assert plain.min() == 0 and plain.max() == 255
    colour = np.zeros((4, 5, 3), np.uint8)
    assert eight_bit(colour, InputSpec(**size | {"bit_depth": 8})) is colour


@pytest.mark.parametrize(
    ("primary", "companion"),
    [
        ("a/det.fp16.onnx", "a/det.fp16.rescore.onnx"),
        ("det.rtx.engine", "det.rescore.rtx.engine"),
        ("det.engine", "det.rescore.engine"),
    ],
)
def test_a_companion_lies_beside_its_primary_and_keeps_its_suffix(primary: str, companion: str) -> None:
    assert companion_beside(Path(primary)) == Path(companion)
