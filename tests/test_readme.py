"""What README.md shows is run as it stands: its shell lines one after the other, then its lines of Python.

Only the recipe and the data are other ones, so small that training takes seconds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import irforge
from irforge.datasets import open_dataset
from irforge.runtime.report.schema import read_report

ROOT = Path(irforge.__file__).resolve().parents[1]
SIDE = 32


def block(heading: str) -> str:
    """The first fenced block under a heading of README.md."""
    section = (ROOT / "README.md").read_text().split(f"## {heading}\n", 1)[1]
    found = re.search(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(1)


def write_data(root: Path) -> None:
    """Twelve frames for training and four for the test, each with one target."""
    random = np.random.default_rng(7)
    names = [f"{index:06d}" for index in range(16)]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name in names:
        frame, mask = random.normal(100, 5, (SIDE, SIDE)), np.zeros((SIDE, SIDE), np.uint8)
        row, column = random.integers(2, SIDE - 6, 2)
        mask[row : row + 3, column : column + 3] = 255
        frame[mask > 0] += 90
        cv2.imwrite(str(root / "images" / f"{name}.png"), frame.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    (root / "train.txt").write_text("\n".join(names[:12]))
    (root / "test.txt").write_text("\n".join(names[12:]))


def write_recipe(path: Path) -> None:
    recipe = yaml.safe_load((ROOT / "train/detectors/mshnet/recipe_small.yaml").read_text())
    recipe["input"] |= {"height": SIDE, "width": SIDE}
    recipe |= {"validation_share": 0.3, "validate_every": 1, "compile": False}
    recipe["stages"] = [{"epochs": 1, "crop": SIDE, "batch": 4, "samples": 8, "lr": [1e-3, 1e-4]}]
    path.write_text(yaml.safe_dump(recipe))


def write_clip(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (SIDE, SIDE))
    for x in (4, 8, 12):
        frame = np.full((SIDE, SIDE, 3), 90, np.uint8)
        frame[12:16, x : x + 4] = 230
        writer.write(frame)
    writer.release()


@pytest.mark.timeout(600)
def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="engines: pip install irforge[rtx]")
    monkeypatch.chdir(tmp_path)
    for stage in ("train", "export", "calib", "runtime"):
        (tmp_path / stage).symlink_to(ROOT / stage)
    write_data(tmp_path / "data" / "NUDT-SIRST")
    write_recipe(tmp_path / "recipe.yaml")
    write_clip(tmp_path / "clip.mp4")
    recipe = "train/detectors/mshnet/recipe_small.yaml"
    script = block("Step by step")
    assert recipe in script
    done = subprocess.run(
        ["bash", "-e", "-c", script.replace(recipe, "recipe.yaml")],
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "IRFORGE_DATA": str(tmp_path / "data"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]

    report = read_report("report.json")
    assert [model.precision for model in report.models] == ["fp32", "fp32", "fp16", "int8"]
    assert report.data.frames == len(open_dataset(tmp_path / "data" / "NUDT-SIRST:test")) == 4
    assert [model.engines[0].targets for model in report.models if model.engines] == [["8.0", "8.6", "8.9", "12.0"]]
    assert Path("report.html").stat().st_size > 10_000
    assert len([json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]) == 3
    assert Path("out.mp4").stat().st_size > 0

    seen: dict[str, object] = {}
    exec(compile(block("Five lines of Python"), "README.md", "exec"), seen)
    assert isinstance(seen["detections"], irforge.Detections)
