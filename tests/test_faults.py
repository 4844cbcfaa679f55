"""Every input that a user can get wrong: one line, the exit code of its kind, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from irforge.files import PARTIAL

USAGE, INPUT, ARTIFACT, ENVIRONMENT, INTERRUPTED = 2, 3, 4, 5, 130
ROOT = Path(__file__).parents[1]

Model = Callable[..., Path]
Frames = Callable[..., np.ndarray]


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


# --- frames


def test_a_missing_folder(workplace: Workplace, spot_model: Model) -> None:
    workplace.refused(INPUT, "nowhere", arguments=("run", spot_model(), "./nowhere", "--json", "o.jsonl"))


def test_an_empty_folder(workplace: Workplace, spot_model: Model) -> None:
    workplace.put("empty/notes.txt", "no frame")
    workplace.refused(INPUT, "empty", "no frames", arguments=("run", spot_model(), "empty", "--json", "o.jsonl"))


def test_a_truncated_png(workplace: Workplace, frames: Path, spot_model: Model) -> None:
    whole = (frames / "f2.png").read_bytes()
    workplace.put("frames/f2.png", whole[: len(whole) // 2])
    arguments = ("run", spot_model(), frames, "--json", "o.jsonl", "--overlay", "o.mp4")
    workplace.refused(INPUT, "f2.png", "truncated", arguments=arguments)


def test_levels_beyond_the_contracts_bit_depth(workplace: Workplace, spot_model: Model) -> None:
    workplace.put("deep.png", np.full((64, 64), 9000, np.uint16))
    workplace.refused(INPUT, "deep.png", "bit", arguments=("run", spot_model(), "deep.png", "--json", "o.jsonl"))


def test_unequal_channels_under_strict(workplace: Workplace, spot_model: Model) -> None:
    coloured = np.full((64, 64, 3), 90, np.uint8)
    coloured[5, 5] = (10, 90, 200)
    workplace.put("coloured.png", coloured)
    model = spot_model(colour="strict")
    workplace.refused(INPUT, "coloured.png", "strict", arguments=("run", model, "coloured.png", "--json", "o.jsonl"))


def test_a_frame_below_16_pixels(workplace: Workplace, spot_model: Model) -> None:
    workplace.put("tiny.png", np.full((15, 64), 90, np.uint8))
    workplace.refused(INPUT, "tiny.png", "16", arguments=("run", spot_model(), "tiny.png", "--json", "o.jsonl"))


def test_a_truncated_video(workplace: Workplace, spot_model: Model) -> None:
    writer = cv2.VideoWriter(str(workplace.folder / "w.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    for level in range(40):
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()
    whole = (workplace.folder / "w.avi").read_bytes()
    workplace.put("cut.avi", whole[: len(whole) // 2])
    arguments = ("run", spot_model(), "cut.avi", "--json", "o.jsonl", "--overlay", "o.mp4")
    workplace.refused(INPUT, "cut.avi", arguments=arguments)


@pytest.mark.parametrize("verb", ["bench", "evaluate"])
def test_a_mask_of_another_size(
    workplace: Workplace, pairs: Path, verb: str, untrained: Path, untrained_onnx: Path
) -> None:
    workplace.put("pairs/masks/f1.png", np.zeros((64, 60), np.uint8))
    arguments = (
        ("evaluate", untrained, "--data", pairs) if verb == "evaluate" else ("bench", untrained_onnx, "--data", pairs)
    )
    workplace.refused(INPUT, "f1.png", "60x64", "64x64", arguments=arguments)


# --- weights


@pytest.mark.parametrize("verb", ["export", "evaluate"])
def test_weights_of_another_detector(workplace: Workplace, pairs: Path, verb: str) -> None:
    from safetensors.numpy import save

    contract = {
        "schema_version": "1.0",
        "input": {"height": 64, "width": 64, "fit": {"kind": "squash"}, "normalization": {"mean": 100, "std": 35}},
        "output": {
            "kind": "mask",
            "classes": ["target"],
            "score_threshold": 0.5,
            "tensors": [{"name": "mask", "dtype": "float32", "shape": ["N", 1, "H", "W"], "meaning": "p"}],
        },
        "provenance": {"detector": "mshnet"},
    }
    weights = {"backbone.conv1.weight": np.zeros((8, 1, 3, 3), np.float32)}
    tail = ("-o", "model.onnx") if verb == "export" else ("--data", pairs)
    workplace.put("other.safetensors", save(weights, {"irforge.contract": json.dumps(contract)}))
    workplace.refused(ARTIFACT, "other.safetensors", "MSHNet", arguments=(verb, "other.safetensors", *tail))
    contract["provenance"] = {"detector": "yolo"}
    workplace.put("other.safetensors", save(weights, {"irforge.contract": json.dumps(contract)}))
    workplace.refused(ARTIFACT, "'yolo'", "mshnet", arguments=(verb, "other.safetensors", *tail))


@pytest.mark.parametrize("verb", ["export", "evaluate"])
def test_a_pickle_given_as_weights(workplace: Workplace, pairs: Path, verb: str) -> None:
    # Unpickling this would write a file.
    workplace.put("weights.pkl", b"cposix\nsystem\n(S'touch gotcha'\ntR.")
    tail = ("-o", "model.onnx") if verb == "export" else ("--data", pairs)
    workplace.refused(ARTIFACT, "weights.pkl", "--trust", arguments=(verb, "weights.pkl", *tail))
    workplace.refused(ARTIFACT, "weights.pkl", arguments=(verb, "weights.pkl", *tail, "--trust"))


# --- models


def model_arguments(verb: str, model: object) -> tuple[object, ...]:
    tails: dict[str, tuple[object, ...]] = {
        "run": ("frames", "--json", "o.jsonl"),
        "bench": ("--data", "frames", "-o", "report.json"),
        "calibrate": ("frames", "-o", "ranges.json"),
        "quantize": ("--ranges", "ranges.json", "-o", "q.onnx"),
        "half": ("-o", "h.onnx"),
        "build": ("-o", "m.rtx.engine"),
    }
    return (verb, model, *tails[verb])


MODEL_VERBS = ["run", "bench", "calibrate", "quantize", "half", "build"]


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_an_onnx_file_without_a_contract(workplace: Workplace, frames: Path, verb: str, spot_model: Model) -> None:
    workplace.put("ranges.json", "{}")
    model = spot_model(contract=False)
    workplace.refused(ARTIFACT, "irforge adopt", arguments=model_arguments(verb, model))


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_a_truncated_onnx_file(workplace: Workplace, frames: Path, verb: str, spot_model: Model) -> None:
    whole = spot_model().read_bytes()
    workplace.put("ranges.json", "{}")
    workplace.put("cut.onnx", whole[: len(whole) * 2 // 3])
    workplace.refused(ARTIFACT, "cut.onnx", arguments=model_arguments(verb, "cut.onnx"))


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_external_data_outside_the_folder(workplace: Workplace, frames: Path, verb: str, spot_model: Model) -> None:
    model = onnx.load(spot_model())
    stored = onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "outside")
    stored.ClearField("raw_data")
    stored.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", "4")):
        stored.external_data.add(key=key, value=value)
    model.graph.initializer.append(stored)
    workplace.put("ranges.json", "{}")
    workplace.put("secret.bin", b"\0" * 4)
    workplace.put("inner/outside.onnx", model.SerializeToString())
    workplace.refused(ARTIFACT, "../secret.bin", "outside", arguments=model_arguments(verb, "inner/outside.onnx"))


# --- calibration and engines


def test_a_stale_calibration(workplace: Workplace, frames: Path, untrained_onnx: Path, spot_model: Model) -> None:
    done = workplace.run("calibrate", spot_model(), frames, "-o", "ranges.json")
    assert done.returncode == 0, done.stderr
    workplace.put("unrelated", "")
    arguments = ("quantize", untrained_onnx, "--ranges", "ranges.json", "-o", "q.onnx")
    workplace.refused(ARTIFACT, "ranges.json", "calibrate", arguments=arguments)


def test_an_all_black_calibration_set(workplace: Workplace, untrained_onnx: Path) -> None:
    for index in range(3):
        workplace.put(f"black/f{index}.png", np.zeros((64, 64), np.uint8))
    arguments = ("calibrate", untrained_onnx, "black", "-o", "ranges.json")
    workplace.refused(ARTIFACT, "black", arguments=arguments)


@pytest.mark.parametrize(("sm", "words"), [("9.9", ("9.9", "unknown")), ("8.7", ("8.7", "Orin")), ("", ())])
def test_an_unknown_sm(workplace: Workplace, spot_model: Model, sm: str, words: tuple[str, ...]) -> None:
    arguments = ("build", spot_model(), "-o", "m.rtx.engine", "--sm", sm or "sm_")
    workplace.refused(USAGE, *words, arguments=arguments)


# --- a full disk


@pytest.fixture
def full_disk(workplace: Workplace) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs a command whose `full/` has 4 kB left: a small file system in a mount namespace of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare")
    target = workplace.folder / "full"
    target.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k none '{target}' && head -c 61440 /dev/zero > '{target}/ballast' || exit 77;"
        f"\"$@\"; code=$?; ls -A '{target}' | grep -vx ballast | sed 's/^/LEFT /'; exit $code"
    )
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = workplace.run(*arguments, prefix=prefix)
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("this machine allows no file system of one's own")
        return done

    yield run


@pytest.mark.parametrize("verb", ["run", "overlay", "export", "calibrate", "half", "build", "bench"])
def test_a_full_disk(
    full_disk: Callable[..., subprocess.CompletedProcess[str]],
    workplace: Workplace,
    spot_frame: Frames,
    verb: str,
    untrained: Path,
    untrained_onnx: Path,
    spot_model: Model,
) -> None:
    for index in range(60):
        workplace.put(f"many/f{index}.png", spot_frame())
    arguments: dict[str, tuple[object, ...]] = {
        "run": ("run", spot_model(), "many", "--json", "full/o.jsonl"),
        "overlay": ("run", spot_model(), "many", "--overlay", "full/o.mp4"),
        "export": ("export", untrained, "-o", "full/m.onnx"),
        "calibrate": ("calibrate", untrained_onnx, "many", "-o", "full/ranges.json", "--limit", "2"),
        "half": ("half", untrained_onnx, "-o", "full/h.onnx"),
        "build": ("build", untrained_onnx, "-o", "full/m.rtx.engine", "--sm", "8.9"),
        "bench": ("bench", spot_model(), "--rounds", "1", "-o", "full/report.json"),
    }
    done = full_disk(*arguments[verb])
    assert done.returncode == ENVIRONMENT, done.stderr
    assert done.stderr.startswith("irforge: ") and done.stderr.count("\n") == 1, done.stderr
    assert "space" in done.stderr
    assert "LEFT" not in done.stdout


# --- Ctrl-C


def processor_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interrupt(workplace: Workplace, ready: Callable[[int], bool], *arguments: object) -> tuple[int, str]:
    """Start a command, press Ctrl-C once it is in the middle of its work, return exit code and stderr."""
    command = [sys.executable, "-m", "irforge.cli", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workplace.folder,
        env=workplace.environment,
        start_new_session=True,
        # Shells start background jobs, these tests perhaps among them, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not ready(process.pid):
            assert process.poll() is None, f"ended before it could be interrupted: {process.communicate()[1]}"
            time.sleep(0.02)
        # A terminal sends it to the whole foreground group, children included.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, errors


def interrupted(workplace: Workplace, ready: Callable[[int], bool], *arguments: object) -> None:
    code, errors = interrupt(workplace, ready, *arguments)
    # Where Ctrl-C passed through an exec() of torch's, Python itself ends by the signal: shells show 130 for both.
    assert code in (INTERRUPTED, -signal.SIGINT), errors
    assert errors.count("\n") == 1 and errors.startswith("irforge: interrupted"), errors


@pytest.fixture
def clip(workplace: Workplace) -> Path:
    """A video that keeps any command busy for a while."""
    path = workplace.folder / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 256))
    for index in range(2000):
        writer.write(np.full((256, 320, 3), index % 100, np.uint8))
    writer.release()
    workplace.put("unrelated", "")
    return path


def test_ctrl_c_in_run(workplace: Workplace, clip: Path, untrained_onnx: Path) -> None:
    def writing(_: int) -> bool:
        return any(path.stat().st_size > 0 for path in workplace.folder.glob(f".o.*{PARTIAL}.mp4"))

    interrupted(workplace, writing, "run", untrained_onnx, clip, "--json", "o.jsonl", "--overlay", "o.mp4")
    assert not workplace.left()


def test_ctrl_c_in_bench(workplace: Workplace, pairs: Path, untrained: Path, untrained_onnx: Path) -> None:
    arguments = ("bench", untrained_onnx, "--reference", untrained, "--rounds", "10000", "-o", "report.json")
    interrupted(workplace, lambda process: processor_seconds(process) > 6, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_export(workplace: Workplace, untrained: Path) -> None:
    interrupted(workplace, lambda process: processor_seconds(process) > 6, "export", untrained, "-o", "m.onnx")
    assert not workplace.left()


def test_ctrl_c_in_calibrate(workplace: Workplace, spot_frame: Frames, untrained_onnx: Path) -> None:
    first = workplace.put("many/f.png", spot_frame())
    for index in range(3000):
        os.link(first, first.with_name(f"g{index}.png"))
    workplace.put("unrelated", "")
    arguments = ("calibrate", untrained_onnx, "many", "-o", "ranges.json")
    interrupted(workplace, lambda process: processor_seconds(process) > 3, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_evaluate(workplace: Workplace, pairs: Path, untrained: Path) -> None:
    for kind in ("images", "masks"):
        for index in range(3000):
            os.link(pairs / kind / "f0.png", pairs / kind / f"g{index}.png")
    workplace.put("unrelated", "")
    arguments = ("evaluate", untrained, "--data", pairs, "--json", "figures.json")
    interrupted(workplace, lambda process: processor_seconds(process) > 5, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_build(workplace: Workplace, untrained_onnx: Path) -> None:
    def compiling(process: int) -> bool:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return any(processor_seconds(int(child)) > 0.3 for child in children)

    interrupted(workplace, compiling, "build", untrained_onnx, "-o", "m.rtx.engine")
    assert not workplace.left()


def test_ctrl_c_in_fit_leaves_only_whole_checkpoints(workplace: Workplace, pairs: Path) -> None:
    from safetensors.numpy import load_file

    recipe = """
detector: mshnet
input: {height: 64, width: 64, mean: 90, std: 35}
validation_share: 0.25
stages: [{epochs: 500, crop: 64, batch: 1, samples: 3, lr: [1.0e-3, 1.0e-4]}]
optimizer: {name: adam}
"""
    workplace.put("recipe.yaml", recipe)
    out = workplace.folder / "out"

    def second_epoch(_: int) -> bool:
        log = out / "log.csv"
        return log.is_file() and len(log.read_text().splitlines()) >= 3

    interrupted(workplace, second_epoch, "fit", "recipe.yaml", "--data", pairs, "--out", out)
    assert not [path for path in workplace.left() if PARTIAL in path or path.startswith("tmp/")]
    assert load_file(out / "best.safetensors")
    done = len((out / "log.csv").read_text().splitlines()) - 1
    resumed = workplace.run("fit", "recipe.yaml", "--data", pairs, "--out", out, "--resume", "--epochs", done + 1)
    assert resumed.returncode == 0, resumed.stderr
    assert len((out / "log.csv").read_text().splitlines()) == done + 2


# --- what lies outside of any stage


def test_ctrl_c_that_another_exception_swallowed_is_still_ctrl_c(tmp_path: Path) -> None:
    code = """
import os, signal
from irforge.errors import run_command

def work() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise AttributeError("half an import") from None

signal.signal(signal.SIGINT, signal.default_int_handler)
run_command(work)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == INTERRUPTED
    assert done.stderr == "irforge: interrupted; nothing half-written was left\n"


def test_a_package_that_is_not_installed_is_one_line(workplace: Workplace, frames: Path, spot_model: Model) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; from irforge.cli import main;"
        f"sys.argv = ['irforge', 'run', {str(spot_model())!r}, 'frames']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workplace.folder)
    assert done.returncode == ENVIRONMENT
    assert done.stderr == "irforge: no Python package 'onnxruntime' here. 'irforge doctor' says how to install it\n"


def test_an_output_that_cannot_be_written_is_one_line(workplace: Workplace, frames: Path, spot_model: Model) -> None:
    workplace.put("occupied", "a file where a folder is needed")
    arguments = ("run", spot_model(), frames, "--json", "occupied/o.jsonl")
    workplace.refused(ENVIRONMENT, "occupied", arguments=arguments)
