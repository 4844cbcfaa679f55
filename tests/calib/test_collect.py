from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from irforge.artifact import load_model, save_model
from irforge.calib import observe
from irforge.calib.collect import collect, collect_ranges
from irforge.calib.ranges import load_ranges, save_ranges
from irforge.errors import ArtifactError, CalibrationError, InputError, IrforgeError, UsageError
from tests.calib.conftest import Net


def _all_tensors(path: Path, frames: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name != "mask"]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([*names, "mask"], session.run([*names, "mask"], {"frames": frames}), strict=True))


def test_ranges_are_those_of_the_tensors_themselves(
    attentive: Path, attentive_ranges: Path, frames_tensor: np.ndarray
) -> None:
    found = load_ranges(attentive_ranges).tensors
    expected = _all_tensors(attentive, frames_tensor)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].min == pytest.approx(float(values.min()), rel=1e-5, abs=1e-6)
        assert found[name].max == pytest.approx(float(values.max()), rel=1e-5, abs=1e-6)
        assert found[name].absmax == max(-found[name].min, found[name].max)
        assert found[name].count == values.size
        assert found[name].zeros == pytest.approx(np.mean(values == 0), abs=1e-3)
        means = np.abs(values).mean(axis=tuple(range(1, values.ndim)))
        assert found[name].mean_abs == pytest.approx(float(means.max()), rel=1e-4)


def test_subnormal_share_counts_what_fp16_flushes(tmp_path: Path, frame_folder: Path) -> None:
    net = Net()
    x = net.node("Cast", "frames", to=TensorProto.FLOAT)
    net.node("Mul", x, net.constant(2.0**-21), out="mask")
    save_model(tmp_path / "m.onnx", net.model())
    ranges = collect_ranges(tmp_path / "m.onnx", str(frame_folder), threads=1)
    levels = np.concatenate([cv2.imread(str(path), -1).ravel() for path in sorted(frame_folder.iterdir())])
    assert ranges.tensors["mask"].subnormal == pytest.approx(np.mean(levels[levels > 0] < 128))


def test_collecting_twice_gives_the_same_bytes(attentive: Path, attentive_ranges: Path, frame_folder: Path) -> None:
    again = attentive_ranges.with_name("again.json")
    save_ranges(again, collect_ranges(attentive, str(frame_folder), threads=1))
    assert again.read_bytes() == attentive_ranges.read_bytes()


def test_reading_tensors_in_several_runs_changes_nothing(
    attentive: Path, attentive_ranges: Path, frame_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "GROUP_BYTES", 300_000)
    assert collect_ranges(attentive, str(frame_folder), threads=1) == load_ranges(attentive_ranges)


def test_order_and_content_of_the_frames_are_in_the_key(attentive: Path, frame_folder: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in frame_folder.iterdir())
    for stem, order in {"up": names, "down": names[::-1], "fewer": names[1:]}.items():
        (tmp_path / f"{stem}.txt").write_text("\n".join(str(frame_folder / name) for name in order))
    up, down, fewer = (
        collect_ranges(attentive, str(tmp_path / f"{stem}.txt"), threads=1) for stem in ("up", "down", "fewer")
    )
    assert len({up.key, down.key, fewer.key}) == 3
    assert {name: found.thresholds for name, found in up.tensors.items()} == {
        name: found.thresholds for name, found in down.tensors.items()
    }


def test_a_limit_takes_frames_from_the_whole_set(attentive: Path, frame_folder: Path) -> None:
    every = collect_ranges(attentive, str(frame_folder), threads=1).frames
    some = collect_ranges(attentive, str(frame_folder), limit=2, threads=1).frames
    assert some.sha256 == [every.sha256[1], every.sha256[4]]
    assert (some.asked, some.available) == (2, 6)


def test_fewer_frames_than_asked_for_is_said(
    attentive: Path, frame_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect(attentive, str(frame_folder), tmp_path / "r.json", limit=50)
    printed = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "6of6" in printed
    assert "50wereaskedfor" in printed


def _refused(kind: type[IrforgeError], match: str, model: Path, source: Path) -> None:
    with pytest.raises(kind, match=match) as caught:
        collect_ranges(model, str(source), threads=1)
    assert "\n" not in caught.value.line


@pytest.mark.parametrize("level", [0, 137])
def test_a_set_of_flat_frames_is_refused(attentive: Path, tmp_path: Path, level: int) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((32, 32), level, np.uint8))
    _refused(CalibrationError, f"all 3 calibration frames .* are flat, of level {level}", attentive, tmp_path)


def test_one_flat_frame_among_others_is_no_fault(attentive: Path, frame_folder: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((32, 32), np.uint8))
    (tmp_path / "list.txt").write_text(f"black.png\n{frame_folder / '00.png'}\n")
    assert len(collect_ranges(attentive, str(tmp_path / "list.txt"), threads=1).frames.sha256) == 2


def test_a_damaged_frame_in_the_middle_is_named(attentive: Path, frame_folder: Path, tmp_path: Path) -> None:
    for path in frame_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    _refused(InputError, r"03\.png", attentive, tmp_path)


def test_a_frame_below_16_pixels_is_named(attentive: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((12, 40), np.uint8))
    _refused(InputError, r"tiny\.png.*40x12.*16", attentive, tmp_path)


def test_missing_and_empty_folders_are_refused(attentive: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _refused(InputError, "empty", attentive, tmp_path / "empty")
    _refused(IrforgeError, "nowhere", attentive, tmp_path / "nowhere")


def test_a_list_that_names_a_missing_file_is_refused(attentive: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.png\n")
    _refused(InputError, r"gone\.png', which .*list\.txt' lists", attentive, tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n")
    _refused(InputError, "is empty", attentive, tmp_path / "list.txt")


def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path, frame_folder: Path) -> None:
    net = Net()
    x = net.node("Cast", "frames", to=TensorProto.FLOAT)
    net.node("Sigmoid", net.node("Sqrt", net.node("Sub", x, net.constant(100.0)), out="root"), out="mask")
    save_model(tmp_path / "m.onnx", net.model())
    _refused(CalibrationError, "tensor 'root' is not finite on .*00.png", tmp_path / "m.onnx", frame_folder)


def test_a_model_without_contract_names_adopt(tmp_path: Path, frame_folder: Path, attentive: Path) -> None:
    bare = load_model(attentive)
    del bare.metadata_props[:]
    save_model(tmp_path / "bare.onnx", bare)
    _refused(ArtifactError, "irforge adopt", tmp_path / "bare.onnx", frame_folder)


@pytest.mark.parametrize("settings", [{"method": "max"}, {"percentile": 0}, {"percentile": 101}, {"limit": 0}])
def test_settings_that_make_no_sense_are_refused(
    attentive: Path, frame_folder: Path, settings: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        collect_ranges(attentive, str(frame_folder), **settings)  # type: ignore[arg-type]


def test_an_interrupted_collection_leaves_nothing(
    attentive: Path, frame_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def interrupt(*arguments: object) -> None:
        seen.append(arguments)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(observe, "observe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(attentive, str(frame_folder), tmp_path / "ranges.json")
    assert list(tmp_path.iterdir()) == []
