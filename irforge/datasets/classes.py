"""Which classes of a dataset count, under which numbers, and what becomes of the rest: `NAME:SPLIT@CLASSES[@REST]`.

CLASSES is a list of names with commas between, in the order of the numbers they get; one that begins with '-' takes
classes away from all. The names of `GROUPS` stand for their members: `COCO:5k@coco-novel`, `DRONE-IR:train@-drone`.

An object of a class that does not count is still in the picture. As background it teaches a detector that such things
are to be suppressed, which hurts most where they are what it is to learn next; so REST says what becomes of frames:

- `boxes` (where nothing is said): only the boxes go. The published protocols evaluate so, on all frames.
- `labelled`: frames left without any box go too, as in published base training; mixed frames keep unlabelled objects.
- `frames`: every frame that shows a class that does not count goes, so that nothing unlabelled is seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from irforge.datasets.base import BoxTruth, Dataset, Finding, Sample
from irforge.errors import UsageError

Rest = Literal["boxes", "labelled", "frames"]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


COCO = _names(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
"""COCO's 80 classes in the order of their ids (Lin et al., ECCV 2014)."""

COCO_NOVEL = _names(
    "person, bicycle, car, motorcycle, airplane, bus, train, boat, bird, cat, dog, horse, sheep, cow, bottle, chair, "
    "couch, potted plant, dining table, tv"
)
"""The 20 that VOC has too: novel in few-shot detection on COCO (Kang et al., ICCV 2019)."""

COCO_THERMAL = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "boat", "dog")
"""COCO's classes that are among those of IFSOD: gray-COCO has no boxes of them."""

VOC = _names(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person, "
    "pottedplant, sheep, sofa, train, tvmonitor"
)
"""The 20 classes of Pascal VOC (Everingham et al., IJCV 2010), as their files spell them."""

VOC_NOVEL = {
    1: ("bird", "bus", "cow", "motorbike", "sofa"),
    2: ("aeroplane", "bottle", "cow", "horse", "sofa"),
    3: ("boat", "cat", "motorbike", "sheep", "sofa"),
}
"""The three splits of VOC into 15 base and 5 novel classes (Kang et al., ICCV 2019)."""

IFSOD = _names("person, car, bicycle, uav, motorcycle, truck, bus, bison, deer, dog, boat")
"""The 11 classes of the infrared few-shot set IFSOD, also called IFSODD, in the order of their ids; all are novel."""

GROUPS: dict[str, tuple[str, ...]] = {
    "coco": COCO,
    "coco-novel": COCO_NOVEL,
    "coco-base": tuple(name for name in COCO if name not in COCO_NOVEL),
    "coco-thermal": COCO_THERMAL,
    "gcoco": tuple(name for name in COCO if name not in COCO_THERMAL),
    "ifsod": IFSOD,
    "voc": VOC,
}
for _split, _novel in VOC_NOVEL.items():
    _base = tuple(name for name in VOC if name not in _novel)
    # Where both count, the base classes come first, so that a classifier of theirs grows at its end.
    GROUPS |= {f"voc-base{_split}": _base, f"voc-novel{_split}": _novel, f"voc-all{_split}": _base + _novel}

_SELECTION = re.compile(r"(?P<data>.+?)@(?P<classes>[^@:/\\]+)(@(?P<rest>\w+))?")


def published_novel(classes: Sequence[str]) -> tuple[str, ...]:
    """The novel ones of classes that are those of a published few-shot split, novel alone or after base ones; else
    none."""
    for number, novel in VOC_NOVEL.items():
        if tuple(classes) in (novel, GROUPS[f"voc-all{number}"]):
            return novel
    return tuple(classes) if tuple(classes) in (COCO_NOVEL, IFSOD) else ()


def split_selection(text: str) -> tuple[str, str]:
    """`NAME:SPLIT@CLASSES@REST` in two: before and from the first '@'; the second is empty where there is none."""
    found = _SELECTION.fullmatch(text)
    return (text, "") if found is None else (found["data"], text[len(found["data"]) :])


def select(dataset: Dataset, selection: str) -> Dataset:
    """The dataset with the classes that `@CLASSES[@REST]` asks for; its split is named with it.

    Raises:
        UsageError: as `named_classes` and `select_classes`.
    """
    listed, _, rest = selection.removeprefix("@").partition("@")
    chosen: Rest | None = next((known for known in get_args(Rest) if known == (rest or "boxes")), None)
    if chosen is None:
        raise UsageError(
            f"'@{rest}' after the classes says nothing known of the frames that are left",
            f"It may be @{', @'.join(get_args(Rest))}",
        )
    found = select_classes(dataset, named_classes(listed, dataset.classes, dataset.name), chosen)
    return replace(found, split=dataset.split + selection)


def named_classes(listed: str, classes: Sequence[str], where: str) -> tuple[str, ...]:
    """The names that `listed` (names and groups with commas between, '-' before what is taken away) chooses.

    Raises:
        UsageError: a name that `classes` does not have, one given twice, or nothing left.
    """
    known = {name.casefold(): name for name in classes}
    items = [item.strip() for item in listed.split(",") if item.strip()]
    chosen = list(classes) if items and items[0].startswith("-") else []
    for item in items:
        name = item.removeprefix("-")
        members = (name,) if name.casefold() in known else GROUPS.get(name.casefold(), (name,))
        for member in members:
            if member.casefold() not in known:
                raise UsageError(f"'{where}' has no class '{member}'", f"It has: {', '.join(classes)}")
            real = known[member.casefold()]
            if item.startswith("-") != (real in chosen):
                state = "is not there to be taken away" if item.startswith("-") else "is named twice"
                raise UsageError(f"class '{real}' {state} in '@{listed}'", "Name every class once")
            chosen.remove(real) if item.startswith("-") else chosen.append(real)
    if not chosen:
        raise UsageError(f"'@{listed}' leaves no class of '{where}'", f"It has: {', '.join(classes)}")
    return tuple(chosen)


def select_classes(dataset: Dataset, classes: Sequence[str], rest: Rest = "boxes") -> Dataset:
    """The dataset with the boxes of `classes` only, numbered in their order; `rest` as in the module's first lines.

    Objects that lose their label and stay in sight are counted in a finding.

    Raises:
        UsageError: a class that the dataset does not have, or no frame left.
    """
    missing = [name for name in classes if name not in dataset.classes]
    if missing:
        raise UsageError(f"'{dataset.name}' has no class '{missing[0]}'", f"It has: {', '.join(dataset.classes)}")
    if tuple(classes) == dataset.classes and rest == "boxes":
        return dataset
    numbers = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes], np.int64)
    samples: list[Sample] = []
    hidden = 0
    for sample in dataset:
        truth = sample.box_truth
        if truth is None:
            raise UsageError(f"'{dataset.name}' has masks, and no classes to choose from", "Leave the '@' out")
        new = numbers[truth.classes]
        kept = new >= 0
        if (rest == "frames" and not kept.all()) or (rest == "labelled" and not kept.any()):
            continue
        difficult = None if truth.difficult is None else truth.difficult[kept]
        samples.append(replace(sample, box_truth=BoxTruth(truth.boxes[kept], new[kept], difficult)))
        hidden += int(np.count_nonzero(~kept))
    if not samples:
        raise UsageError(
            f"no frame of '{dataset.name}:{dataset.split}' is left with {', '.join(classes)} ({rest})",
            "Keep other classes, or '@boxes'",
        )
    findings = list(dataset.findings)
    if hidden:
        text = f"{hidden} of classes that do not count stay in sight, and are background"
        findings.append(Finding("objects without a label", dataset.split, text, fault=False))
    return replace(dataset, samples=tuple(samples), classes=tuple(classes), findings=tuple(findings))
