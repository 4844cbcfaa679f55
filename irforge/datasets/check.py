"""Findings about a dataset that opens: what its files say of each other, and frames that share their content."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from irforge.datasets.base import Dataset, Finding, Sample
from irforge.datasets.describe import FrameFacts, frame_facts
from irforge.datasets.sirst import read_boxes, read_centroids
from irforge.errors import InputError

_CENTROID_TOLERANCE = 0.05
"""Pixels: SIRST's authors turned colour to gray in a way of their own, which moves centroids by up to 0.006."""


def scan(dataset: Dataset, samples: Iterable[Sample] | None = None) -> tuple[list[FrameFacts], list[Finding]]:
    """Read every frame: its facts, and all findings about the dataset, those of its reader first.

    Args:
        samples: the dataset's samples, where somebody counts them on their way.
    """
    facts: list[FrameFacts] = []
    findings = list(dataset.findings)
    for sample in dataset if samples is None else samples:
        try:
            facts.append(frame_facts(sample))
            findings += _sample_findings(sample)
        except InputError as error:
            findings.append(Finding("cannot be used", sample.id, error.line, fault=True))
    return facts, findings + _same_content(facts)


def _sample_findings(sample: Sample) -> list[Finding]:
    findings = []
    if sample.box_file is not None:
        findings += _against_mask(sample, sample.box_file)
    if sample.centroid_file is not None and (truth := sample.centroids()) is not None:
        stated = read_centroids(sample.centroid_file)
        if not _same_points(stated, truth):
            text = f"{sample.centroid_file.name} has {_shown(stated)}, the mask {_shown(truth)}; the mask counts"
            findings.append(Finding("stale centroid", sample.id, text, fault=False))
    if sample.box_truth is not None:
        rows = Counter(zip(map(tuple, sample.box_truth.boxes.tolist()), sample.box_truth.classes.tolist(), strict=True))
        for (box, _), times in rows.items():
            if times > 1:
                text = f"box {list(box)} is there {times} times"
                findings.append(Finding("repeated box", sample.id, text, fault=True))
    return findings


def _against_mask(sample: Sample, box_file: Path) -> list[Finding]:
    """Boxes of a file belong to the mask if they are those of its components, all of them; else the mask counts.

    A mask without any target where the file has some is a fault: one of the two is another frame's.
    """
    stated, truth = read_boxes(box_file), sample.boxes()
    if truth is None or sorted(stated.tolist()) == sorted(truth.boxes.tolist()):
        return []
    if not len(truth):
        text = f"{box_file.name} has {_shown(stated)}, and the mask is empty"
        return [Finding("mask without its target", sample.id, text, fault=True)]
    text = f"{box_file.name} has {_shown(stated)}, the mask {_shown(truth.boxes)}; the mask counts"
    return [Finding("stale box", sample.id, text, fault=False)]


def _same_points(stated: np.ndarray, truth: np.ndarray) -> bool:
    if len(stated) != len(truth):
        return False
    apart = np.abs(stated[:, None] - truth[None]).max(axis=2)
    near = apart <= _CENTROID_TOLERANCE
    return bool(near.any(axis=0).all() and near.any(axis=1).all())


def _same_content(facts: Sequence[FrameFacts]) -> list[Finding]:
    names: dict[str, list[str]] = defaultdict(list)
    for frame in facts:
        names[frame.digest].append(frame.name)
    return [
        Finding("same frame twice", same[0], f"has the content of {', '.join(same[1:])}", fault=True)
        for same in names.values()
        if len(same) > 1
    ]


def _shown(rows: np.ndarray) -> str:
    texts = ["[" + ", ".join(f"{value:.5g}" for value in row) + "]" for row in rows]
    return " ".join(texts) or "none"
