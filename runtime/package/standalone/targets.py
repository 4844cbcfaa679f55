"""What a graph's outputs say: the detections of `irforge.detections`, in NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.frames.geometry import Geometry

Array = npt.NDArray[Any]
Found = dict[str, Array]
"""boxes [n, 4] (xyxy, half-open pixel edges), scores [n], classes [n], areas [n]; of masks also centres [n, 2]."""


def decode(outputs: dict[str, Array], contract: dict[str, Any], geometry: Geometry, threshold: float) -> Found:
    """What the first frame of a batch holds above `threshold` (strict), in frame pixels, highest score first.

    Raises:
        ValueError: the graph overflowed, or names an unknown class.
    """
    if contract["output"]["kind"] == "mask":
        plane = geometry.crop(outputs["mask"][0, 0])
        found = mask_targets(plane, threshold, contract["output"]["connectivity"])
        corner = np.array((geometry.left, geometry.top), np.float32)
        along_x, along_y = geometry.scale
        if not geometry.is_identity:
            found["areas"] = found["areas"] / np.float32(along_x * along_y)
        found["centres"] = geometry.to_frame_points(found["centres"] + corner)
        found["boxes"] = geometry.to_frame_boxes(found["boxes"] + np.tile(corner, 2))
        return found
    boxes, scores, classes = (outputs[name][0] for name in ("boxes", "scores", "classes"))
    kept = scores > np.float32(threshold)
    if np.isnan(scores).any() or np.isnan(boxes[kept]).any():
        raise ValueError("the graph's outputs hold NaN")
    if ((classes[kept] < 0) | (classes[kept] >= len(contract["output"]["classes"]))).any():
        raise ValueError("the graph names a class that the contract does not know")
    boxes = geometry.to_frame_boxes(boxes[kept])
    sides = boxes[:, 2:] - boxes[:, :2]
    found = {"boxes": boxes, "scores": scores[kept], "classes": classes[kept], "areas": sides[:, 0] * sides[:, 1]}
    return _by_score(found, np.all(sides > 0, axis=1))


def mask_targets(plane: Array, threshold: float, connectivity: int) -> Found:
    """The connected components of a plane, H x W, above `threshold` (strict), in its pixels."""
    plane = np.asarray(plane, np.float32)
    if np.isnan(plane).any():
        raise ValueError("the graph's mask holds NaN")
    pixels, owners, count = components(plane > np.float32(threshold), connectivity)
    rows, columns = np.divmod(pixels, plane.shape[1])
    areas = np.bincount(owners, minlength=count)
    boxes = np.empty((count, 4), np.float32)
    for side, values, pick in ((0, columns, np.minimum), (1, rows, np.minimum), (2, columns + 1, np.maximum)):
        boxes[:, side] = _extreme(values, owners, count, pick)
    boxes[:, 3] = _extreme(rows + 1, owners, count, np.maximum)
    sums = np.stack([np.bincount(owners, values, count) for values in (columns, rows)], axis=1)
    found = {
        "boxes": boxes,
        "scores": _extreme(plane.reshape(-1)[pixels], owners, count, np.maximum),
        "classes": np.zeros(count, np.int64),
        "areas": areas.astype(np.float32),
        "centres": (sums / areas[:, None] + 0.5).astype(np.float32),
    }
    return _by_score(found, np.ones(count, np.bool_))


def components(mask: Array, connectivity: int) -> tuple[Array, Array, int]:
    """The pixels of a bool mask in raster order, the number of the component of each, and how many there are.

    Components are numbered by their first pixels. Neighbours join the smaller of their roots until none differ.
    """
    width = mask.shape[1]
    pixels = np.flatnonzero(mask)
    columns = pixels % width
    ones, others = [], []
    for down, right in ((0, 1), (1, 0), (1, -1), (1, 1))[: 2 if connectivity == 4 else 4]:
        wanted = pixels + down * width + right
        place = np.minimum(np.searchsorted(pixels, wanted), len(pixels) - 1)
        joined = (pixels[place] == wanted) & (columns + right >= 0) & (columns + right < width)
        ones.append(np.flatnonzero(joined))
        others.append(place[joined])
    one, other = np.concatenate(ones), np.concatenate(others)
    root = np.arange(len(pixels))
    while (root[one] != root[other]).any():
        np.minimum.at(root, np.maximum(root[one], root[other]), np.minimum(root[one], root[other]))
        while (root != root[root]).any():
            root = root[root]
    first, owners = np.unique(root, return_inverse=True)
    return pixels, owners, len(first)


def rows(found: Found, classes: list[str]) -> list[dict[str, Any]]:
    """One JSON-ready object a detection, as `irforge run --json` writes it."""
    listed = []
    for k, score in enumerate(found["scores"].tolist()):
        number = int(found["classes"][k])
        row = {"box": _rounded(found["boxes"][k]), "score": round(score, 6), "class": number, "label": classes[number]}
        if "centres" in found:
            row["centre"] = _rounded(found["centres"][k])
        row["area"] = round(float(found["areas"][k]), 2)
        listed.append(row)
    return listed


def above(found: Found, threshold: float) -> Found:
    """What exceeds `threshold` (strict), highest score first; equal scores keep their order."""
    return _by_score(found, found["scores"] > np.float32(threshold))


def _by_score(found: Found, kept: Array) -> Found:
    order = np.flatnonzero(kept)
    order = order[np.argsort(-found["scores"][order], kind="stable")]
    return {name: column[order] for name, column in found.items()}


def _extreme(values: Array, owners: Array, count: int, pick: Any) -> Array:
    start = np.full(count, np.inf if pick is np.minimum else -np.inf, np.float32)
    pick.at(start, owners, values.astype(np.float32))
    return start


def _rounded(values: Array) -> list[float]:
    return [round(float(value), 2) for value in values]
