"""A dataset small enough to train on in a test, and the recipe for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Twelve frames of 32x32 with a bright 3x3 target each, as images/ masks/ train.txt."""
    root = tmp_path / "small"
    rng = np.random.default_rng(5)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    names = [f"frame{i}" for i in range(12)]
    for name in names:
        frame = rng.normal(100, 5, (32, 32))
        mask = np.zeros((32, 32), np.uint8)
        row, column = rng.integers(2, 26, 2)
        mask[row : row + 3, column : column + 3] = 255
        frame[mask > 0] += 90
        cv2.imwrite(str(root / "images" / f"{name}.png"), frame.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    (root / "train.txt").write_text("\n".join(names))
    return root


@pytest.fixture
def small_recipe(tmp_path: Path, small_data: Path) -> Path:
    """Three epochs of two steps: one of 16-pixel crops, two of whole frames."""
    recipe = {
        "detector": "mshnet",
        "network": {"in_channels": 1},
        "input": {"height": 32, "width": 32, "mean": 100, "std": 30},
        "data": [{"data": f"{small_data}:train"}],
        "validation_share": 0.3,
        "stages": [
            {"epochs": 1, "crop": 16, "batch": 2, "samples": 4, "lr": [1e-3, 1e-3]},
            {"epochs": 2, "crop": 32, "batch": 2, "samples": 4, "lr": [1e-3, 1e-4]},
        ],
        "loss": {"location": "none", "smooth": 1.0, "empty": "null-risk", "bce": 1.0},
        "optimizer": {"name": "adamw", "warmup_steps": 2, "clip": 5.0},
        "ema": 0.9,
        "seed": 3,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def small_box_recipe(tmp_path: Path, small_data: Path) -> Path:
    """Two epochs of two steps of 32-pixel crops, for a detector that gives boxes."""
    recipe = {
        "detector": "itd",
        "network": {"in_channels": 1, "init": "kaiming"},
        "input": {"height": 64, "width": 64, "fit": "pad-to-multiple", "mean": 100, "std": 30},
        "data": [{"data": f"{small_data}:train"}],
        "validation_share": 0.3,
        "stages": [{"epochs": 2, "crop": 32, "batch": 2, "samples": 4, "lr": [1e-3, 1e-4]}],
        "optimizer": {"name": "adamw", "clip": 5.0},
        "ema": 0.9,
        "channels_last": False,
        "seed": 3,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
