"""SIRST-V2 as its authors ship it: mixed/ID.png, annotations/{masks,bboxes,centroids}, lists of names in splits/.

The mask is the truth. A frame without a mask file is a background: it has no target. Boxes and centroids in the XML
files are the authors' own reading of the masks, held against them by `irforge data`; one of them is known to be stale.
(SIRST v1 has the layout that `masks` reads; its XML boxes are one around all targets, and are not read.)
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irforge.datasets.base import Finding, Sample
from irforge.datasets.layout import ALL, Reading, choose_split, files_by_stem, pick, read_list, strays
from irforge.errors import InputError

_MASK_END = "_pixels0"


def matches(root: Path) -> bool:
    return (root / "mixed").is_dir() and (root / "annotations" / "masks").is_dir()


def splits(root: Path) -> list[str]:
    return list(_lists(root))


def read(root: Path, split: str | None) -> Reading:
    images, masks = root / "mixed", root / "annotations" / "masks"
    frames, truths = files_by_stem(images), files_by_stem(masks)
    boxes, centroids = (_xml_by_stem(root / "annotations" / kind) for kind in ("bboxes", "centroids"))
    findings: list[Finding] = []
    if split is None:
        name, listed_in, stems = ALL, None, list(frames)
        findings += strays(masks, truths, frames, (_MASK_END,))
        findings += strays(root / "annotations" / "bboxes", boxes, frames)
    else:
        lists = _lists(root)
        name = choose_split(split, lists, root)
        listed_in = lists[name]
        stems = read_list(listed_in)
    samples = []
    for stem in stems:
        frame, mask, box_file = pick(stem, frames, images, listed_in), truths.get(stem + _MASK_END), boxes.get(stem)
        if mask is None and box_file is not None and len(read_boxes(box_file)):
            raise InputError(
                f"the mask of '{stem}' is missing in '{masks}', and '{box_file}' says that it holds a target",
                "Add the mask, or take the frame out",
            )
        samples.append(
            Sample(
                stem,
                frame,
                mask,
                background=mask is None,
                box_file=box_file,
                centroid_file=centroids.get(stem),
            )
        )
    return Reading(name, tuple(samples), findings=tuple(findings))


def read_boxes(path: Path) -> npt.NDArray[np.float32]:
    """The boxes of a `bboxes/ID.xml`: float32 [n, 4] xyxy, half-open, from 0. The file counts from 1, and a
    background's has one object without a box.

    Raises:
        InputError: no XML, or a box that is no four numbers.
    """
    return _numbers(path, "bndbox", ("xmin", "ymin", "xmax", "ymax")) - np.float32(1)


def read_centroids(path: Path) -> npt.NDArray[np.float32]:
    """The points of a `centroids/ID.xml`: float32 [n, 2] (x, y) as edge coordinates. The file counts pixels from 1, so
    the centre of the first one, at 0.5 from the edge, is 1 there.

    Raises:
        InputError: no XML, or a point that is no two numbers.
    """
    return _numbers(path, "centroid", ("xc", "yc")) - np.float32(0.5)


def _numbers(path: Path, element: str, fields: Sequence[str]) -> npt.NDArray[np.float32]:
    try:
        found = ElementTree.parse(path).getroot().iterfind(f"object/{element}")
        rows = [[float(item.findtext(field, "")) for field in fields] for item in found]
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"'{path}' is no annotation of SIRST ({error})", "Copy the file again") from None
    return np.array(rows, np.float32).reshape(-1, len(fields))


def _xml_by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.xml"))}


def _lists(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
