"""A set of three kinds of targets with K-shot lists, and small recipes from a base of two to all three."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = ("deer", "car", "kite")
SHAPES = {"deer": (8, 18, 90), "car": (20, 8, -80), "kite": (12, 12, 60)}
"""Width, height and contrast."""

NETWORK: dict[str, Any] = {
    "classes": "data",
    "depth": 18,
    "in_channels": 1,
    "stride_in_1x1": False,
    "neck": False,
    "decouple": False,
    "anchor_sizes": [8, 16, 32],
    "candidates": 60,
    "proposals": 12,
    "least_score": 0.0,
}
COMMON: dict[str, Any] = {
    "detector": "glmd-ca",
    "input": {"height": 64, "width": 64, "fit": "pad-to-multiple", "mean": 100, "std": 30},
    "validation_share": 0.0,
    "score_threshold": 0.25,
    "channels_last": False,
    "seed": 3,
}
LOSS = {"anchor_batch": 32, "roi_batch": 4, "candidates": 60, "proposals": 20}


def write_kinds(root: Path) -> Path:
    """Splits `train` and `test` of 9 frames of 64 x 64 with one target each, and `train_1shot_seed0` and `..seed1`."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        content = _coco(root, split, rng)
        _write(root / "annotations" / f"instances_{split}.json", content)
    for seed in (0, 1):
        ids = {str(number + 1): [number + 3 * seed] for number in range(3)}
        _write(root / "fewshot" / f"seed{seed}_1shot.json", {"seed": seed, "k": 1, "annotation_ids": ids})
    return root


def _coco(root: Path, split: str, rng: np.random.Generator) -> dict[str, Any]:
    images, annotations = [], []
    for number in range(9):
        name = CLASSES[number % 3]
        width, height, contrast = SHAPES[name]
        frame = rng.normal(100, 4, (64, 64))
        x, y = (int(v) for v in rng.integers(2, 40, 2))
        frame[y : y + height, x : x + width] += contrast
        file_name = f"frames/{split}/{number}.png"
        (root / file_name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / file_name), frame.clip(0, 255).astype(np.uint8))
        images.append({"id": number, "file_name": file_name, "width": 64, "height": 64})
        box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": number % 3 + 1} | box)
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def base_recipe(root: Path) -> dict[str, Any]:
    """Two epochs of one update on deer and cars."""
    return COMMON | {
        "network": NETWORK | {"norm": "batch", "freeze_at": 0, "freeze_res5": False},
        "data": [{"data": f"{root}:train@-kite@frames"}],
        "stages": [{"epochs": 2, "crop": 64, "batch": 2, "samples": 2, "lr": [1e-3, 1e-3]}],
        "loss": LOSS | {"classification": "ce", "objectness": "bce"},
        "optimizer": {"name": "adamw"},
    }


def novel_recipe(root: Path) -> dict[str, Any]:
    """One update on K shots of all three."""
    return COMMON | {
        "network": NETWORK | {"norm": "frozen", "freeze_at": 3, "freeze_res5": True},
        "data": [{"data": f"{root}:train_{{K}}shot_seed{{S}}"}],
        "shots": {1: [{"epochs": 1, "crop": 64, "batch": 2, "samples": 2, "lr": [1e-2, 1e-2]}]},
        "loss": LOSS,
        "optimizer": {"name": "sgd", "betas": [0.9, 0.0], "clip": 10.0},
    }
