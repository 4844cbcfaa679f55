"""Frames reach a stranger's network as they did in its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from irforge.contract import Letterbox, PercentileGain, Squash
from irforge.errors import UsageError
from irforge.export.adopt.deployable import Adopted, adopt_model
from irforge.export.adopt.door import Frames, parse_scaling
from irforge.export.adopt.observation import Choices
from irforge.runtime.backends.ort import OrtSession
from tests.export.adopt.strangers import ULTRALYTICS, write_model

SIDE = 32


def echo(
    folder: Path,
    *,
    channels: int = 3,
    last: bool = False,
    door: int = TensorProto.FLOAT,
    before: str = "",
    by: float = 255.0,
    **model: object,
) -> Path:
    """A network whose mask is the weighted sum of what comes in: 1 x red + 2 x green + 4 x blue."""
    weights = np.array([1, 2, 4][:channels], np.float32)
    shape = (1, 1, 1, channels) if last else (1, channels, 1, 1)
    arrays = {"weights": weights.reshape(shape), "axis": np.array([3 if last else 1], np.int64)}
    nodes = [helper.make_node("Cast", ["images"], ["x0"], to=TensorProto.FLOAT)]
    if before:
        arrays["by"] = np.array(by, np.float32)
        nodes.append(helper.make_node(before, ["x0", "by"], ["x"]))
    else:
        nodes.append(helper.make_node("Identity", ["x0"], ["x"]))
    nodes += [
        helper.make_node("Mul", ["x", "weights"], ["product"]),
        helper.make_node("ReduceSum", ["product", "axis"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["mask"], perm=[0, 3, 1, 2] if last else [0, 1, 2, 3]),
    ]
    sides = [SIDE, SIDE, channels] if last else [channels, SIDE, SIDE]
    image = helper.make_tensor_value_info("images", door, ["batch", *sides])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])
    return write_model(folder / "echo.onnx", nodes, [image], [mask], arrays, **model)  # type: ignore[arg-type]


def adopted(path: Path, frames: Frames) -> Adopted:
    return adopt_model(path, frames, Choices(scores="probability"))


def seen(made: Adopted, folder: Path, frames: np.ndarray) -> np.ndarray:
    made.save(folder / "adopted.onnx")
    with OrtSession(folder / "adopted.onnx", threads=1) as session:
        return session.run({"frames": frames})["mask"]


def random_frames(dtype: type = np.uint8, top: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, (2, 1, SIDE, SIDE)).astype(dtype)


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("levels", (0, 0, 0), (1, 1, 1)),
        ("unit", (0, 0, 0), (255, 255, 255)),
        ("signed", (127.5,) * 3, (127.5,) * 3),
        ("imagenet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ("100/50", (100,) * 3, (50,) * 3),
        ("1,2,3/4,5,6", (1, 2, 3), (4, 5, 6)),
    ],
)
def test_the_gray_frame_fills_all_channels_each_scaled_by_its_own(
    tmp_path: Path, normalize: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    made = adopted(echo(tmp_path), Frames(normalize, "squash"))
    frames = random_frames()
    expected = sum(w * (frames.astype(np.float64) - m) / s for w, m, s in zip((1, 2, 4), mean, std, strict=True))
    np.testing.assert_allclose(seen(made, tmp_path, frames), expected, rtol=1e-5, atol=1e-5)
    assert made.contract.input.channels == 1
    assert made.contract.input.normalization.mean == pytest.approx(np.mean(mean))
    assert any("gray frame fills all three" in note for note in made.notes)
    assert made.contract.provenance.history[-1]["mean"] == pytest.approx(list(mean))


def test_channels_may_come_last(tmp_path: Path) -> None:
    frames = random_frames()
    made = adopted(echo(tmp_path, last=True), Frames("unit", "squash"))
    np.testing.assert_allclose(seen(made, tmp_path, frames), frames / 255 * 7, rtol=1e-5)


def test_a_network_of_one_channel(tmp_path: Path) -> None:
    frames = random_frames()
    made = adopted(echo(tmp_path, channels=1), Frames("unit", "squash"))
    np.testing.assert_allclose(seen(made, tmp_path, frames), frames / 255, rtol=1e-5)
    assert not any("three" in note for note in made.notes)


@pytest.mark.parametrize("door", [TensorProto.FLOAT, TensorProto.UINT8])
def test_a_graph_that_scales_levels_itself_is_not_scaled_twice(tmp_path: Path, door: int) -> None:
    frames = random_frames()
    made = adopted(echo(tmp_path, door=door, before="Div"), Frames(fit="squash"))
    np.testing.assert_allclose(seen(made, tmp_path, frames), frames / 255 * 7, rtol=1e-5)


@pytest.mark.parametrize("normalize", ["", "levels"])
def test_a_graph_that_scales_levels_itself_gets_0_to_255_of_deeper_frames(tmp_path: Path, normalize: str) -> None:
    frames = random_frames(np.float32, 1 << 14)
    made = adopted(echo(tmp_path, before="Div"), Frames(normalize, "squash", bit_depth=14))
    assert made.contract.input.normalization.std == pytest.approx(16383 / 255)
    np.testing.assert_allclose(seen(made, tmp_path, frames), frames / 16383 * 7, rtol=1e-5)
    assert any("0..16383 become 0..255" in reason for reason in made.door.reasons)


def test_a_graph_of_uint8_takes_deeper_frames_only_through_a_gain(tmp_path: Path) -> None:
    path = echo(tmp_path, door=TensorProto.UINT8, before="Div")
    with pytest.raises(UsageError, match=r"takes uint8 levels, and frames of 14 bits have more.*--gain"):
        adopted(path, Frames(fit="squash", bit_depth=14))
    frames = random_frames()
    made = adopted(path, Frames(fit="squash", bit_depth=14, gain="percentile:1,99"))
    np.testing.assert_allclose(seen(made, tmp_path, frames), frames / 255 * 7, rtol=1e-5)


@pytest.mark.parametrize(("before", "by"), [("Div", 16383.0), ("Mul", 1 / 16383), ("Sub", 8000.0)])
def test_a_graph_that_scales_raw_counts_itself_does_not_pass_for_one_of_levels(
    tmp_path: Path, before: str, by: float
) -> None:
    path = echo(tmp_path, before=before, by=by)
    with pytest.raises(UsageError, match=r"how pixels are scaled.*0/1"):
        adopted(path, Frames(fit="squash", bit_depth=14))
    frames = random_frames(np.float32, 1 << 14)
    made = adopted(path, Frames("0/1", "squash", bit_depth=14))
    scaled = {"Div": frames / by, "Mul": frames * by, "Sub": frames - by}[before]
    np.testing.assert_allclose(seen(made, tmp_path, frames), scaled * 7, rtol=1e-4, atol=0.01)


@pytest.mark.parametrize(("level", "depth"), [("nan", 8), ("inf", 8), ("-1", 8), ("256", 8), ("16384", 14)])
def test_a_pad_level_that_no_pixel_has_is_refused(tmp_path: Path, level: str, depth: int) -> None:
    frames = Frames("unit", "letterbox", pad_level=float(level), bit_depth=depth)
    with pytest.raises(UsageError, match=f"--pad-level {level} .*0 to {2**depth - 1}"):
        adopted(echo(tmp_path), frames)


def test_raw_counts_come_in_as_floats(tmp_path: Path) -> None:
    frames = random_frames(np.float32, 1 << 14)
    made = adopted(echo(tmp_path), Frames("unit", "squash", bit_depth=14))
    assert made.contract.input.door == "float32"
    np.testing.assert_allclose(seen(made, tmp_path, frames), frames / 16383 * 7, rtol=1e-5)


def test_deeper_frames_with_a_gain_come_in_as_levels(tmp_path: Path) -> None:
    made = adopted(echo(tmp_path), Frames("unit", "squash", bit_depth=14, gain="percentile:1,99"))
    assert made.contract.input.door == "uint8" and made.contract.input.gain == PercentileGain(low=1, high=99)


def test_what_ultralytics_writes_into_a_file_says_it_all(tmp_path: Path) -> None:
    made = adopted(echo(tmp_path, metadata=ULTRALYTICS), Frames())
    spec = made.contract.input
    assert (spec.fit, spec.resize, spec.pad_level, spec.normalization.std) == (Letterbox(), "linear", 114.0, 255.0)
    deep = adopted(echo(tmp_path, metadata=ULTRALYTICS), Frames(bit_depth=14))
    assert deep.contract.input.pad_level == pytest.approx(114 * 16383 / 255)
    assert made.contract.provenance.detector == "YOLOv8n"
    assert any("AGPL-3.0" in note for note in made.notes)
    squashed = adopted(echo(tmp_path, metadata=ULTRALYTICS | {"head": "RTDETRDecoder"}), Frames())
    assert squashed.contract.input.fit == Squash()


def test_scaling_is_in_levels_of_the_door() -> None:
    assert parse_scaling("unit", 1, 16383.0) == ((0.0,), (16383.0,))
    assert parse_scaling("levels", 1, 16383.0) == ((0.0,), (16383.0 / 255,))
    assert parse_scaling("0,0,0/255,255,255", 3) == ((0.0,) * 3, (255.0,) * 3)
