"""CM-CLIP: the published arithmetic, the normalisation inside the patch convolution, prompts and token ids."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irforge.errors import UsageError
from irforge.rescoring import RescoringSpec
from irforge.train.rescoring.clip import Clip, ClipSizes
from irforge.train.rescoring.cm_clip import MEAN, STD, ClipScorer, clip_rescorer, text_table
from irforge.train.rescoring.fusion import Fusion, parse_alpha
from irforge.train.rescoring.tokens import tokenize

SIZES = ClipSizes(
    image=32, patch=8, width=64, layers=2, embed=32, text_width=64, text_layers=2, context=12, vocabulary=130
)
CLASSES = ["person", "car", "dog"]
PHOTO = (320, 1125, 539)
TOKENS: dict[str, tuple[int, ...]] = {
    "person": (2533,),
    "bicycle": (11652,),
    "car": (1615,),
    "motorcycle": (10297,),
    "airplane": (16451,),
    "bus": (2840,),
    "train": (3231,),
    "boat": (4440,),
    "bird": (3329,),
    "cat": (2368,),
    "dog": (1929,),
    "horse": (4558,),
    "sheep": (9629,),
    "cow": (9706,),
    "bottle": (5392,),
    "chair": (4269,),
    "couch": (12724,),
    "potted plant": (48581, 3912),
    "dining table": (8658, 2175),
    "tv": (1583,),
    "background": (5994,),
    "motorbike": (33341,),
    "sofa": (15723,),
    "aeroplane": (27735, 3980),
    "tvmonitor": (3197, 10198),
    "pottedplant": (3547, 4841, 3912),
    "diningtable": (1462, 653, 2175),
    "drone": (9397,),
}


@pytest.fixture
def clip() -> Clip:
    torch.manual_seed(0)
    return Clip(SIZES).eval()


def letters(texts: Sequence[str]) -> Tensor:
    """The first ten letters of each text as tokens: enough to tell prompts apart without a vocabulary."""
    tokens = torch.zeros(len(texts), 12, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        codes = [min(ord(letter), 127) for letter in text[-10:]]
        row[: len(codes) + 2] = torch.tensor([128, *codes, 129])
    return tokens


def fused(similarities: Sequence[float], score: float, column: int, **fields: Any) -> float:
    """The new score of a box whose features have these cosines with the table's rows."""
    given: dict[str, Any] = {"alpha": [0.7], "columns": [column]}
    spec = RescoringSpec(method="clip", classes=["any"], crop_size=32, **given | fields)
    # Orthonormal rows: the features' coordinates are the cosines.
    table = torch.eye(len(similarities) + 1)[:-1]
    cosines = torch.tensor(similarities)
    features = torch.cat([cosines, (1 - cosines.square().sum()).clamp_min(0).sqrt()[None]])
    return Fusion(spec, table, 100.0)(features[None], torch.tensor([score]), torch.tensor([0])).item()


def test_the_published_fusion() -> None:
    assert fused((0.25, 0.22, 0.18), 0.30, 0) == pytest.approx(0.495524, abs=2e-6)
    assert fused((0.30, 0.10, 0.29), 0.90, 1) == pytest.approx(0.630000, abs=2e-6)
    probabilities = [fused((0.25, 0.22, 0.18), 0.3, column, alpha=[0]) for column in range(3)]
    assert probabilities == pytest.approx([0.951747, 0.047385, 0.000868], abs=2e-6)


def test_the_softmax_is_finite_where_the_published_one_overflows() -> None:
    assert fused((0.9, 0.2), 0.5, 0) == pytest.approx(0.65)


def test_alpha_is_the_detectors_share() -> None:
    cosines = (0.25, 0.22, 0.18)
    assert fused(cosines, 0.4, 1, alpha=[1]) == pytest.approx(0.4)
    assert fused(cosines, 0.4, 1, alpha=[0]) == pytest.approx(0.047385, abs=2e-6)
    assert fused(cosines, 0.4, -1) == pytest.approx(0.4)


def test_the_background_is_never_a_class_and_lowers_all_others() -> None:
    alone, beside = (fused(cosines, 0.5, 0, alpha=[0]) for cosines in ((0.2, 0.1), (0.2, 0.1, 0.21)))
    assert beside < alone / 2


@pytest.mark.parametrize("preprocess", ["clip", "reference"])
def test_the_normalisation_folds_into_the_patches_exactly(clip: Clip, preprocess: Any) -> None:
    crops = torch.rand(3, 3, 32, 32)
    if preprocess == "clip":
        seen = (crops - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    else:
        seen = crops[:, [2, 1, 0]]
    spec = RescoringSpec(method="clip", classes=["any"], columns=[0], alpha=[0], crop_size=32)
    with torch.no_grad():
        expected = clip.visual(seen)
        scorer = ClipScorer(clip.visual, Fusion(spec, torch.randn(2, 32), 1.0), preprocess)
        torch.testing.assert_close(scorer.visual(crops), expected, atol=1e-5, rtol=1e-5)


def test_classes_that_are_not_judged_have_no_prompt_and_keep_their_scores(clip: Clip) -> None:
    rescorer = clip_rescorer(clip, CLASSES, judged=["dog", "person"], tokens=letters, limit=None)
    assert rescorer.spec.columns == [1, -1, 0]
    assert rescorer.spec.source["prompts"] == ["a photo of dog", "a photo of person", "a photo of background"]
    boxes = np.array([[2, 2, 30, 30], [5, 1, 20, 40], [0, 0, 9, 9]], np.float32)
    image = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    scores = np.array([0.9, 0.5, 0.3], np.float32)
    found = rescorer.rescore(image, boxes, scores, np.array([0, 1, 2]))
    assert found[1] == scores[1] and (found[[0, 2]] != scores[[0, 2]]).all()
    assert (found >= 0.7 * scores - 1e-6).all() and (found <= 0.7 * scores + 0.3 + 1e-6).all()


def test_a_novel_set_of_its_own_numbers_its_classes_from_zero(clip: Clip) -> None:
    names = ["bird", "bus", "cow", "motorbike", "sofa"]
    assert clip_rescorer(clip, names, tokens=letters).spec.columns == [0, 1, 2, 3, 4]


def test_alpha_may_differ_by_class(clip: Clip) -> None:
    rescorer = clip_rescorer(clip, CLASSES, alpha={"car": 1.0}, tokens=letters)
    assert rescorer.spec.alpha == [0.7, 1.0, 0.7]
    assert rescorer.spec.rows(np.full(3, 0.5, np.float32), np.arange(3)).tolist() == [0, 2]


def test_several_prompts_are_averaged_and_words_stand_for_names(clip: Clip) -> None:
    prompts = ("{}", "ir {}")
    table = text_table(clip, ["car", "dog"], prompts, letters)
    with torch.no_grad():
        parts = F.normalize(clip.encode_text(letters(["car", "ir car", "dog", "ir dog"])), dim=1).view(2, 2, 32)
    torch.testing.assert_close(table, F.normalize(parts.mean(dim=1), dim=1))
    rescorer = clip_rescorer(clip, ["tvmonitor"], words={"tvmonitor": "tv monitor"}, prompts=prompts, tokens=letters)
    assert rescorer.spec.source["prompts"][:2] == ["tv monitor", "ir tv monitor"]


def test_wishes_that_cannot_be_met_are_refused(clip: Clip) -> None:
    with pytest.raises(UsageError, match="no class 'cat'"):
        clip_rescorer(clip, CLASSES, judged=["cat"], tokens=letters)
    with pytest.raises(UsageError, match="no class 'cat'"):
        clip_rescorer(clip, CLASSES, alpha={"cat": 0.5}, tokens=letters)
    with pytest.raises(UsageError, match="where the class goes"):
        clip_rescorer(clip, CLASSES, prompts=("a photo",), tokens=letters)


def test_shares_on_a_command_line() -> None:
    assert parse_alpha(["0.5"]) == 0.5
    assert parse_alpha(["car=0.5", "dog=1"]) == {"car": 0.5, "dog": 1.0}
    for wrong in (["2"], ["car"], ["=0.5"], ["0.5", "car=0.2"], ["nan"]):
        with pytest.raises(UsageError, match="is no share"):
            parse_alpha(wrong)


needs_vocabulary = pytest.mark.skipif(
    find_spec("instant_clip_tokenizer") is None,
    reason="the tokenizer is not installed (pip install 'irforge[rescore]')",
)


@needs_vocabulary
@pytest.mark.parametrize("name", TOKENS)
def test_token_ids_are_openais(name: str) -> None:
    tokens = tokenize([f"a photo of {name}"])
    expected = [49406, *PHOTO, *TOKENS[name], 49407]
    assert tokens.shape == (1, 77) and tokens.dtype == torch.int64
    assert tokens[0, : len(expected)].tolist() == expected and not tokens[0, len(expected) :].any()


@needs_vocabulary
def test_a_prompt_that_clip_cannot_read_is_refused() -> None:
    with pytest.raises(UsageError, match="has 90 tokens, CLIP reads 75"):
        tokenize(["car " * 90])
