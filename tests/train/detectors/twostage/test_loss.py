from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from irforge.train.detectors.base import BoxBatch
from irforge.train.detectors.twostage.boxes import iou_of
from irforge.train.detectors.twostage.loss import TwoStageLoss
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.targets import match_anchors, sample_labels, sample_rois

TRUE = torch.tensor([[10.0, 10, 30, 30], [40, 5, 60, 25]])


def test_anchors_are_objects_background_or_ignored_by_their_overlap() -> None:
    shifted = TRUE[:1].repeat(4, 1) + torch.tensor([0.0, 2, 8, 18])[:, None] * torch.tensor([1.0, 0, 1, 0])
    iou = iou_of(TRUE[:1], shifted)[0]
    assert iou[1] > 0.7 and 0.3 < iou[2] < 0.7 and iou[3] < 0.3
    assert match_anchors(shifted, TRUE[:1]).labels.tolist() == [1, 1, -1, 0]


def test_the_best_anchors_of_a_box_are_objects_whatever_their_overlap() -> None:
    """Ties with them too; an anchor of a frame without boxes is background."""
    anchors = torch.tensor([[0.0, 0, 12, 12], [28, 28, 40, 40], [70, 70, 80, 80]])
    best = iou_of(TRUE[:1], anchors)[0]
    assert best[0] == best[1] < 0.3
    assert match_anchors(anchors, TRUE[:1]).labels.tolist() == [1, 1, 0]
    assert match_anchors(anchors, TRUE[:0]).labels.tolist() == [0, 0, 0]


def test_samples_have_at_most_their_share_of_objects_and_nothing_ignored() -> None:
    labels = torch.tensor([1] * 30 + [0] * 300 + [-1] * 50)
    chosen = sample_labels(labels, 40, 0.5, background=0)
    assert labels[chosen].tolist() == [1] * 20 + [0] * 20 and len(set(chosen.tolist())) == 40
    assert (labels[sample_labels(labels, 100, 0.5, 0)] == 1).sum() == 30


def test_true_boxes_are_proposals_too_and_no_proposal_is_ignored() -> None:
    proposals = torch.tensor([[10.0, 10, 30, 20.1], [10, 10, 30, 19], [80, 80, 90, 90]])
    found = sample_rois(proposals, TRUE, torch.tensor([4, 1]), background=7, count=100, share=0.25)
    by_box = {tuple(box): label for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)}
    assert by_box == {
        tuple(box): label for box, label in zip([*TRUE.tolist(), *proposals.tolist()], [4, 1, 4, 7, 7], strict=True)
    }
    objects = found.labels < 7
    assert (iou_of(found.targets[objects], found.boxes[objects]).diagonal() >= 0.5).all()


def small(**options: Any) -> TwoStage:
    torch.manual_seed(0)
    fields: dict[str, Any] = {"class_count": 2, "depth": 18, "pyramid": False, "norm": "batch", "freeze_at": 0}
    return TwoStage(**fields | {"anchor_sizes": (8, 16, 24), "in_channels": 1} | options)


def batch(size: int = 64) -> tuple[torch.Tensor, BoxBatch]:
    """Two frames with a bright square of each class, one larger than the other, and one empty frame."""
    boxes = [torch.tensor([[6.0, 8, 22, 24], [36, 30, 60, 54]]), torch.tensor([[30.0, 4, 46, 20]]), torch.zeros(0, 4)]
    classes = [torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(0, dtype=torch.int64)]
    frames = torch.zeros(3, 1, size, size)
    for frame, some in zip(frames, boxes, strict=True):
        for x0, y0, x1, y1 in some.long().tolist():
            frame[0, y0:y1, x0:x1] = 2.0
    criterion = TwoStageLoss()
    keys = [criterion.encode(f[0].numpy(), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))["key"] for f in frames]
    return frames, BoxBatch(boxes, classes, {"key": torch.from_numpy(np.stack(keys))})


LOSS: dict[str, Any] = {"anchor_batch": 32, "roi_batch": 12, "candidates": 60, "proposals": 20}


def test_a_step_depends_on_seed_epoch_and_samples_alone() -> None:
    network = small(class_dropout=0.5)
    frames, truth = batch()
    criterion = TwoStageLoss(**LOSS)
    network.eval().roi_heads.dropout.train()
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = criterion(network, frames, truth, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(8)
    again, later = criterion(network, frames, truth, 3), criterion(network, frames, truth, 4)
    assert {name: term.item() for name, term in again.items()} == {name: term.item() for name, term in first.items()}
    assert later["cls"] != first["cls"]
    assert set(first) == {"rpn_cls", "rpn_box", "cls", "box"}


def test_untrained_losses_are_those_of_guessing() -> None:
    """Logits near 0: ln 2 an anchor, ln 3 a box of two classes and background."""
    frames, truth = batch()
    terms = TwoStageLoss(**LOSS)(small().eval(), frames, truth, 0)
    assert terms["rpn_cls"].item() == pytest.approx(np.log(2), abs=0.05)
    assert terms["cls"].item() == pytest.approx(np.log(3), abs=0.3)


def test_frames_without_boxes_train_without_box_terms() -> None:
    frames, truth = batch()
    empty = BoxBatch(truth.boxes[2:], truth.classes[2:], {})
    terms = TwoStageLoss(**LOSS)(small(), frames[2:], empty, 0)
    assert terms["rpn_box"] == 0 and terms["box"] == 0
    torch.stack(list(terms.values())).sum().backward()


def test_a_class_that_the_network_lacks_is_named() -> None:
    frames, truth = batch()
    with pytest.raises(ValueError, match="of class 1, the network has 1"):
        TwoStageLoss(**LOSS)(small(class_count=1), frames, truth, 0)


@pytest.mark.parametrize("pyramid", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_small_network_learns_three_frames(pyramid: bool) -> None:
    network = small(pyramid=pyramid, anchor_sizes=(8, 16, 24, 32, 48) if pyramid else (8, 16, 24)).train()
    frames, truth = batch()
    criterion = TwoStageLoss(**LOSS)
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    history = []
    for epoch in range(16):
        terms = criterion(network, frames, truth, epoch)
        history.append({name: term.item() for name, term in terms.items()})
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    first, last = ({n: np.mean([h[n] for h in part]) for n in history[0]} for part in (history[:3], history[-3:]))
    assert last["rpn_cls"] < 0.6 * first["rpn_cls"] and last["cls"] < 0.6 * first["cls"], (first, last)


@pytest.mark.parametrize("name", ["ca", "bnrl"])
def test_published_classification_losses_plug_in(name: str) -> None:
    frames, truth = batch()
    criterion = TwoStageLoss(classification=name, objectness="ca" if name == "ca" else "bce", **LOSS)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 2, 0])
    image = torch.tensor([0, 0, 0, 1, 1, 1])
    assert criterion.classification(logits, labels, image) < F.cross_entropy(logits, labels)
    terms = criterion(small(), frames, truth, 0)
    assert all(torch.isfinite(term) for term in terms.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classification": "focal"}, "ce, ca or bnrl"),
        ({"objectness": "focal"}, "bce or ca"),
        ({"class_options": {"alpha": 0.2}}, "has no options"),
        ({"roi_share": 2.0}, "roi_share"),
        ({"roi_batch": 0}, "roi_batch"),
    ],
)
def test_options_that_it_lacks_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TwoStageLoss(**options)


def test_a_class_is_present_where_it_is_annotated_though_none_of_its_rows_was_drawn() -> None:
    seen: list[torch.Tensor] = []

    def spy(
        logits: torch.Tensor, labels: torch.Tensor, image: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert present is not None
        seen.extend((labels, present))
        return logits.sum() * 0

    frames, truth = batch()
    criterion = TwoStageLoss(**LOSS, roi_share=0.0)
    criterion.classification = spy
    criterion(small(), frames, truth, 0)
    labels, present = seen
    assert (labels == 2).all() and present.tolist() == [[True, True], [True, False], [False, False]]
