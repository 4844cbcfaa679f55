"""Layouts of one candidate box a row. Each is one function, see `irforge.export.adopt.recognise`."""

from __future__ import annotations

import numpy as np

from irforge.export.adopt.observation import (
    NearlyThisLayout,
    NotThisLayout,
    Observation,
    activation_of,
    are_whole,
    coordinates_of,
    is_distribution,
    the_only,
)
from irforge.export.adopt.reading import Activation, Part, Rows

FEW_ROWS = 1000
"""Queries and finished detections are fewer, anchors and cells of useful sizes are more."""

_STRIDES = (8, 16, 32)
# Finished detections are corners nearly everywhere, and slots of no score may hold anything.
_FINISHED = 0.7


def yolo(seen: Observation) -> Rows:
    """One output of four coordinates and scores, by the row or by the column, with or without objectness."""
    name, value = the_only(seen.of_rank(3), "3-D output")
    first = value.shape[1] < value.shape[2]
    table = np.moveaxis(value, 1, 2) if first else value
    rows, features = table.shape[1:]
    cells = sum((seen.height // stride) * (seen.width // stride) for stride in _STRIDES)
    reasons = [f"'{name}' has {rows} rows of {features} features"]
    if features < 5:
        raise NotThisLayout(f"'{name}' has {features} features a row, and four coordinates and a score are five")
    if seen.class_count is None:
        with_objectness = features > 5 and (rows == 3 * cells or (not first and rows != 300))
        if with_objectness:
            proved = rows == 3 * cells
            guess = "objectness before the classes is assumed, as rows come first; --classes NAMES settles it"
            reasons.append("objectness before the classes: three anchors a cell" if proved else guess)
    else:
        extra = features - 4 - seen.class_count
        if extra not in (0, 1):
            raise NearlyThisLayout(
                f"'{name}' has {features} features a row, and {seen.class_count} classes need 4 more"
            )
        with_objectness = extra == 1
        reasons.append(f"{seen.class_count} classes" + (", and objectness before them" if with_objectness else ""))
    start = 5 if with_objectness else 4
    coordinates, unit, why = coordinates_of(table[..., :4], seen)
    activation, also = activation_of(table[..., 4:], seen)
    if activation == "softmax":
        raise NotThisLayout("its scores are no sigmoids")
    if unit == "fraction" and rows > FEW_ROWS:
        largest = table[..., :4].max()
        raise NearlyThisLayout(f"the boxes in '{name}' reach only {largest:.3g}: no pixels, so they are undecoded")
    return Rows(
        layout="yolo",
        boxes=Part(name, 0, 4, first),
        scores=Part(name, start, features, first),
        coordinates=coordinates,
        unit=unit,
        activation=activation,
        objectness=Part(name, 4, 5, first) if with_objectness else None,
        suppress=True,
        rows=rows,
        reasons=(*reasons, why, also),
    )


def yolo_e2e(seen: Observation) -> Rows:
    """One output N x k x 6 of finished detections: corners, score, class."""
    name, value = the_only(seen.of_rank(3), "3-D output")
    rows, features = value.shape[1:]
    if features != 6 or rows > FEW_ROWS:
        raise NotThisLayout(f"'{name}' is {rows} x {features}, and finished detections are at most {FEW_ROWS} x 6")
    labels, scores = value[..., 5], value[..., 4]
    if not are_whole(labels) or labels.min() < 0 or scores.min() < 0 or scores.max() > 1:
        raise NotThisLayout(f"columns 4 and 5 of '{name}' are no score and class number")
    coordinates, unit, why = coordinates_of(value[..., :4], seen, _FINISHED)
    return Rows(
        layout="yolo-e2e",
        boxes=Part(name, 0, 4),
        scores=Part(name, 4, 5),
        labels=Part(name, 5, 6),
        coordinates=coordinates,
        unit=unit,
        rows=rows,
        reasons=(f"'{name}' has {rows} rows of box, score and whole class number: nothing is left to suppress", why),
    )


def dets(seen: Observation) -> Rows:
    """Finished detections in several outputs: boxes N x k x 4 and scores N x k, or both in N x k x 5; classes N x k."""
    given = seen.roles(len(seen.choices.outputs) if len(seen.choices.outputs) in (2, 3) else 3)
    flat = {name: value for name, value in seen.of_rank(2).items() if value.shape[1] > 1}
    wide = {name: value for name, value in seen.of_rank(3).items() if value.shape[2] in (4, 5)}
    boxes = given[0] if given else the_only(wide, "output N x k x 4 or N x k x 5")[0]
    box_values = seen.values[boxes]
    labels = (
        given[-1] if given else the_only({n: v for n, v in flat.items() if are_whole(v)}, "output N x k of classes")[0]
    )
    if box_values.shape[2] == 5:
        scores, box_scores = Part(boxes, 4, 5), box_values[..., 4]
    else:
        name = (
            given[1] if given else the_only({n: v for n, v in flat.items() if n != labels}, "output N x k of scores")[0]
        )
        scores, box_scores = Part(name, 0, 1, flat=True), seen.values[name]
    if box_scores.shape[:2] != box_values.shape[:2] or seen.values[labels].shape[:2] != box_values.shape[:2]:
        raise NotThisLayout("its boxes, scores and classes have different numbers of rows")
    if box_scores.min() < 0 or box_scores.max() > 1:
        raise NotThisLayout("its scores are no probabilities")
    coordinates, unit, why = coordinates_of(box_values[..., :4], seen, _FINISHED)
    return Rows(
        layout="dets",
        boxes=Part(boxes, 0, 4),
        scores=scores,
        labels=Part(labels, 0, 1, flat=True),
        coordinates=coordinates,
        unit=unit,
        rows=box_values.shape[1],
        reasons=(f"'{boxes}' and '{labels}' are finished boxes and class numbers: nothing is left to suppress", why),
    )


def detr(seen: Observation) -> Rows:
    """Queries: boxes N x Q x 4 and a score a class N x Q x C, or both in one output; no two queries find one object."""
    tables = seen.of_rank(3)
    if len(tables) == 1:
        return _detr_in_one(seen)
    boxes, scores = _pair(seen)
    rows = tables[boxes].shape[1]
    if rows > FEW_ROWS and not seen.choices.layout:
        raise NotThisLayout(f"{rows} rows are more than queries")
    coordinates, unit, why = coordinates_of(tables[boxes], seen)
    values = tables[scores]
    activation, also = activation_of(values, seen)
    background = values.shape[2] - 1 if activation == "softmax" or is_distribution(values) else None
    if background is not None:
        also += "; the last class is 'no object'"
    return Rows(
        layout="detr",
        boxes=Part(boxes, 0, 4),
        scores=Part(scores, 0, values.shape[2]),
        coordinates=coordinates,
        unit=unit,
        activation=activation,
        background=background,
        pick="best" if background is not None else "each",
        rows=rows,
        reasons=(f"'{boxes}' and '{scores}' are boxes and class scores of {rows} queries", why, also),
    )


def _detr_in_one(seen: Observation) -> Rows:
    name, value = the_only(seen.of_rank(3), "3-D output")
    rows, features = value.shape[1:]
    coordinates, unit, why = coordinates_of(value[..., :4], seen)
    if features < 5 or rows > FEW_ROWS or unit != "fraction":
        raise NotThisLayout(f"'{name}' is {rows} x {features} in {unit}, and queries have fractions of the sides")
    if seen.class_count not in (None, features - 4):
        raise NotThisLayout(f"'{name}' has {features - 4} scores a query for {seen.class_count} classes")
    activation, also = activation_of(value[..., 4:], seen)
    return Rows(
        layout="detr",
        boxes=Part(name, 0, 4),
        scores=Part(name, 4, features),
        coordinates=coordinates,
        unit=unit,
        activation=activation,
        rows=rows,
        reasons=(f"'{name}' holds boxes and {features - 4} class scores of {rows} queries", why, also),
    )


def ssd(seen: Observation) -> Rows:
    """Anchors: decoded boxes N x A x 4, scores N x A x C whose first class is the background; suppression is left."""
    boxes, scores = _pair(seen)
    tables = seen.of_rank(3)
    coordinates, unit, why = coordinates_of(tables[boxes], seen)
    values = tables[scores]
    rows, count = values.shape[1:]
    if count < 2:
        raise NotThisLayout("its scores have no background class")
    given = seen.choices.scores
    done = is_distribution(values)
    activation: Activation = "none" if done or given == "probability" else "softmax"
    if given == "sigmoid":
        activation = "sigmoid"
    notes = {"none": "each row's scores sum to 1" * done, "softmax": "scores become probabilities by softmax"}
    background = None if activation == "sigmoid" else 0
    return Rows(
        layout="ssd",
        boxes=Part(boxes, 0, 4),
        scores=Part(scores, 0, count),
        coordinates=coordinates,
        unit=unit,
        activation=activation,
        background=background,
        pick="each",
        suppress=True,
        rows=rows,
        reasons=(
            f"'{boxes}' and '{scores}' are boxes and class scores of {rows} anchors",
            why,
            notes.get(activation, ""),
            "class 0 is the background" if background == 0 else "",
        ),
    )


def _pair(seen: Observation) -> tuple[str, str]:
    given = seen.roles(2)
    tables = seen.of_rank(3)
    if given:
        boxes, scores = given
    else:
        if len(tables) != 2:
            raise NotThisLayout(f"it has {len(tables)} 3-D outputs, not boxes and scores")
        names = [name for name, value in tables.items() if value.shape[2] == 4]
        if len(names) == 2:
            # Four classes: boxes are then told by their name.
            names = [name for name in names if "box" in name.lower()]
        if len(names) != 1:
            raise NearlyThisLayout("which output holds the boxes cannot be told; name them: --outputs BOXES,SCORES")
        boxes = names[0]
        scores = next(name for name in tables if name != boxes)
    if boxes not in tables or scores not in tables or tables[boxes].shape[:2] != tables[scores].shape[:2]:
        raise NotThisLayout("its boxes and scores have different numbers of rows")
    if tables[boxes].shape[2] != 4:
        raise NotThisLayout(f"'{boxes}' has {tables[boxes].shape[2]} coordinates a box")
    return boxes, scores
