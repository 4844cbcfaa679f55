"""Small datasets of every layout, for the tests beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import open_dataset
from irforge.errors import IrforgeError


def picture(path: Path, height: int = 32, width: int = 40, target: tuple[int, int, int, int] | None = None) -> None:
    """A gray frame, or with `target` (x1, y1, x2, y2) a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.arange(height * width, dtype=np.int64).reshape(height, width) % 251
    if target is not None:
        levels[...] = 0
        levels[target[1] : target[3], target[0] : target[2]] = 255
    assert cv2.imwrite(str(path), levels.astype(np.uint8))


def listed(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def coco(root: Path, split: str = "test_stills", **changes: Any) -> Path:
    picture(root / "stills" / "a_0030.png")
    picture(root / "stills" / "b_0030.png")
    content = {
        "images": [{"id": 7, "file_name": "stills/a_0030.png"}, {"id": 9, "file_name": "stills/b_0030.png"}],
        "categories": [{"id": 4, "name": "helicopter"}, {"id": 2, "name": "bird"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "bbox": [1.5, 2, 3, 4]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [10, 10, 5, 5]},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes))
    return path


def one_line(kind: type[IrforgeError], name: Any, data: Path | None = None) -> str:
    with pytest.raises(kind) as caught:
        for sample in open_dataset(name, data):
            sample.frame(), sample.mask()
    assert "\n" not in caught.value.line
    return caught.value.line
