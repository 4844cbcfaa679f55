"""Shared fixtures: a tiny deployable that finds bright spots, frames with spots to find, untrained MSHNet weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from filelock import FileLock

from irforge.artifact import embed_contract, save_model
from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, Provenance, Squash, TensorSpec

SpotModel = Callable[..., Path]
Frames = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def spot_model(tmp_path_factory: pytest.TempPathFactory) -> SpotModel:
    """Writes a whole deployable of four nodes: probability > 0.5 where a level exceeds 128.

    Keyword arguments: `size` (height, width), `batch` (a symbol or a number), `door`, `contract` (False leaves it out),
    and fields of `InputSpec`.
    """

    def write(
        name: str = "spot.onnx",
        size: tuple[int, int] = (64, 64),
        batch: str | int = "N",
        contract: bool = True,
        **fields: Any,
    ) -> Path:
        height, width = size
        spec = InputSpec(
            **{"height": height, "width": width, "fit": Squash(), "normalization": Normalization(mean=128, std=8)}
            | fields
        )
        door = "float" if spec.door == "float32" else "uint8"
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["": 17]>
            spot ({door}[{batch}, 1, {height}, {width}] frames) => (float[{batch}, 1, {height}, {width}] mask) {{
                pixels = Cast<to = 1>(frames)
                mean = Constant<value = float {{128.0}}>()
                std = Constant<value = float {{8.0}}>()
                above = Sub(pixels, mean)
                normalised = Div(above, std)
                mask = Sigmoid(normalised)
            }}"""
        )
        tensor = TensorSpec(name="mask", dtype="float32", shape=["N", 1, height, width], meaning="target probability")
        output = OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[tensor])
        if contract:
            embed_contract(model, Contract(input=spec, output=output, provenance=Provenance(detector="spot")))
        path = tmp_path_factory.mktemp("spot") / name
        save_model(path, model)
        return path

    return write


@pytest.fixture
def spot_frame() -> Callable[..., np.ndarray]:
    """Gray frames of level 90 with three bright pixels in a row, from column `x` in row `y`."""

    def make(height: int = 64, width: int = 64, x: int = 20, y: int = 30) -> np.ndarray:
        frame = np.full((height, width), 90, np.uint8)
        frame[y, x : x + 3] = (150, 200, 160)
        return frame

    return make


@dataclass
class Workplace:
    """A folder that a command runs in, and what it left there."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir()
        self._before = self.contents()

    @property
    def environment(self) -> dict[str, str]:
        # Temporary files of child processes are to be gone too.
        return {**os.environ, "TMPDIR": str(self.folder / "tmp"), "COLUMNS": "200"}

    def contents(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}

    def put(self, name: str, content: bytes | str | np.ndarray) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            assert cv2.imwrite(str(path), content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self._before = self.contents()
        return path

    def run(self, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, "-m", "irforge.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=self.environment)

    def left(self) -> set[str]:
        """What came since the last `put`, but for the cache folder that torch keeps per user."""
        return {name for name in self.contents() - self._before if not name.startswith("tmp/torchinductor_")}

    def refused(self, code: int, *words: str, arguments: tuple[object, ...]) -> None:
        """Run a command that must fail with one line that holds all words, and leave nothing."""
        done = self.run(*arguments)
        assert done.returncode == code, done.stderr or done.stdout
        assert done.stderr.startswith("irforge: ") and done.stderr.count("\n") == 1, done.stderr
        for word in words:
            assert word in done.stderr, done.stderr
        assert not self.left()


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def frames(workplace: Workplace, spot_frame: Frames) -> Path:
    """A folder of three usable frames."""
    for index in range(3):
        workplace.put(f"frames/f{index}.png", spot_frame(x=10 + 10 * index))
    return workplace.folder / "frames"


@pytest.fixture
def pairs(workplace: Workplace, spot_frame: Frames) -> Path:
    """A dataset of four frames with masks, all usable."""
    for index in range(4):
        frame = spot_frame(x=10 + 10 * index)
        workplace.put(f"pairs/images/f{index}.png", frame)
        workplace.put(f"pairs/masks/f{index}.png", (frame > 128).astype(np.uint8) * 255)
    return workplace.folder / "pairs"


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MSHNet with random weights as a checkpoint for frames of 64 x 64; made once for all workers of a test run."""
    return _made_once(tmp_path_factory, "untrained.safetensors", _write_untrained)


@pytest.fixture(scope="session")
def untrained_onnx(tmp_path_factory: pytest.TempPathFactory, untrained: Path) -> Path:
    """The same as `irforge export` writes it."""

    def export(path: Path) -> None:
        command = [sys.executable, "-m", "irforge.cli", "export", str(untrained), "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True)

    return _made_once(tmp_path_factory, "untrained.onnx", export)


def _write_untrained(path: Path) -> None:
    import torch

    from irforge.train.checkpoint import save_checkpoint
    from irforge.train.detectors.mshnet.deploy import MSHNET

    torch.manual_seed(0)
    spec = InputSpec(height=64, width=64, fit=Squash(), normalization=Normalization(mean=100, std=35))
    contract = Contract(input=spec, output=MSHNET.output(0.5), provenance=Provenance(detector="mshnet"))
    save_checkpoint(path, MSHNET.build(), contract)


def _made_once(factory: pytest.TempPathFactory, name: str, write: Callable[[Path], None]) -> Path:
    # Workers of pytest-xdist have sibling folders; what all need lies in their parent.
    base = factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = folder / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write(path)
    return path
