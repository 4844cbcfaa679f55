"""A detector without training goes the way of all others: checkpoint, evaluation, export, FP16, engine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from irforge.artifact import load_model, read_contract, save_model
from irforge.calib.half import half_model
from irforge.contract import Contract, Provenance
from irforge.datasets import open_dataset
from irforge.detections import decode
from irforge.errors import ArtifactError, ExportError, UsageError
from irforge.export.convert import contract_for, onnx_from_torch
from irforge.export.reference import TorchSession
from irforge.export.to_onnx import export_checkpoint
from irforge.export.verify import TOLERANCE, largest_difference, sample_frames
from irforge.frames import prepare
from irforge.runtime.backends.ort import OrtSession
from irforge.runtime.engines import compile_gate
from irforge.train.checkpoint import load_deployable
from irforge.train.classical import classical
from irforge.train.detectors.classical.deploy import Classical, Scored
from irforge.train.detectors.registry import DETECTORS, find_detector
from irforge.train.evaluation import evaluate

# Of so few patches as a small frame has by default, all singular values are the background's.
SMALL_PATCHES = {"ipi": ["patch=20", "step=4"], "nipps": ["patch=20", "step=4"]}
NAMES = [name for name, where in DETECTORS.items() if ".classical." in where]
EXPORTED = [("lcm", {}), ("mpcm", {}), ("wldm", {}), ("fkrw", {"walk": False})]
SIZE = (64, 80)


def entry(name: str) -> Classical:
    found = find_detector(name)
    assert isinstance(found, Classical)
    return found


def checkpoint(folder: Path, name: str, *options: str, threshold: float = 0.5, bit_depth: int = 8) -> Path:
    path = folder / f"{name}.safetensors"
    classical(name, path, list(options), threshold, bit_depth)
    return path


def spotted() -> np.ndarray:
    """A target of 3 x 3 at row 30, column 20, on clouds."""
    rows, columns = np.mgrid[:64, :80]
    frame = 90 + 20 * np.sin(rows / 15) * np.cos(columns / 19)
    frame[29:32, 19:22] += [[30, 60, 30], [60, 100, 60], [30, 60, 30]]
    return frame.round().astype(np.uint8)


def test_all_methods_are_in_the_registry() -> None:
    assert NAMES == ["lcm", "mpcm", "wldm", "fkrw", "ipi", "nipps", "ript"]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_finds_a_target_through_its_checkpoint_alone(tmp_path: Path, name: str) -> None:
    path = checkpoint(tmp_path, name, *SMALL_PATCHES.get(name, ()))
    deployable, contract = load_deployable(path)
    assert contract.provenance.detector == name
    tensor, geometry = prepare(spotted(), contract.input)
    with TorchSession(path, size=SIZE) as session:
        outputs = session.run({"frames": tensor})
    with torch.no_grad():
        assert np.array_equal(outputs["mask"], deployable(torch.from_numpy(tensor)).numpy())
    assert outputs["mask"].min() >= 0 and outputs["mask"].max() == pytest.approx(1)
    found = decode(outputs, contract, geometry)
    assert found.centres is not None
    assert np.abs(found.centres[0] - (20.5, 30.5)).max() < (2.1 if name == "lcm" else 1.1)


@pytest.mark.parametrize("scale", ["peak", "range", "deviation"])
@pytest.mark.parametrize("name", ["mpcm", "wldm", "fkrw", "nipps"])
def test_a_plain_frame_has_no_target(name: str, scale: str) -> None:
    detector = entry(name)
    network = detector.build(scale=scale)
    frames = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    assert detector.deployable(network, detector.published_input({}))(frames).max() < 0.01


def test_half_of_the_deviation_scale_is_the_adaptive_threshold() -> None:
    levels = torch.rand(2, 1, 40, 50, generator=torch.Generator().manual_seed(3)) / 10
    levels[0, 0, 20, 20] = 1
    method = find_detector("mpcm").build().method
    scored = Scored(method, "deviation", k=4)(levels)
    response = method(levels)
    for one, own in zip(scored, response, strict=True):
        assert torch.equal(one > 0.5, own > own.mean() + 4 * own.std(correction=0))
    assert scored.max() < 1


def test_scores_of_the_range_scale_reach_from_0_to_1() -> None:
    scored = find_detector("lcm").build(scale="range")(torch.rand(2, 1, 40, 50))
    assert torch.allclose(scored.amin((1, 2, 3)), torch.zeros(2)) and torch.allclose(
        scored.amax((1, 2, 3)), torch.ones(2)
    )


def test_options_are_checked_and_kept(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "mpcm", "cells=[5]", "bright_only=true", "scale=deviation", "k=6", threshold=0.7)
    deployable, contract = load_deployable(path)
    assert contract.output.score_threshold == 0.7
    options = {"cells": [5], "bright_only": True, "scale": "deviation", "k": 6}
    assert contract.provenance.network == options
    network = deployable.network
    assert isinstance(network, Scored)
    assert (network.method.cells, network.method.bright_only, network.scale, network.k) == ((5,), True, "deviation", 6)
    for option in ("cell=[5]", "cells=[4]", "scale=log", "k=0", "k=-1", "cells=5"):
        with pytest.raises(UsageError, match="do not suit MPCM"):
            checkpoint(tmp_path, "mpcm", option)
    with pytest.raises(UsageError, match="NAME=VALUE"):
        checkpoint(tmp_path, "mpcm", "cells")
    with pytest.raises(UsageError, match=r"has to be trained\. Without training: lcm, mpcm"):
        checkpoint(tmp_path, "mshnet")
    with pytest.raises(UsageError, match="is not trained"):
        entry("ipi").loss()


def test_weights_of_another_detector_are_refused(tmp_path: Path) -> None:
    from irforge.train.checkpoint import save_checkpoint

    _, contract = load_deployable(checkpoint(tmp_path, "lcm"))
    save_checkpoint(tmp_path / "other.safetensors", torch.nn.Conv2d(1, 1, 1), contract)
    with pytest.raises(ArtifactError, match="not LCM"):
        load_deployable(tmp_path / "other.safetensors")


def test_frames_of_14_bits_keep_their_levels(tmp_path: Path) -> None:
    """A target a quarter of a level of 8 bits above its surroundings."""
    frame = np.full((64, 80), 8000, np.uint16)
    frame[30, 20] += 16
    path = checkpoint(tmp_path, "mpcm", bit_depth=14)
    deployable, contract = load_deployable(path)
    tensor, geometry = prepare(frame, contract.input)
    assert tensor.dtype == np.float32
    with torch.no_grad():
        found = decode({"mask": deployable(torch.from_numpy(tensor)).numpy()}, contract, geometry, threshold=0.001)
    assert found.centres is not None and len(found) == 1
    assert found.centres[0].tolist() == [20.5, 30.5]


def test_maps_are_saved_as_they_were_scored(tmp_path: Path) -> None:
    for name, plane in (("images", spotted()), ("masks", (np.indices((64, 80)).sum(0) == 50).astype(np.uint8) * 255)):
        (tmp_path / "set" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / name / "a.png"), plane)
    deployable, contract = load_deployable(checkpoint(tmp_path, "ript"))
    evaluate(deployable, contract, open_dataset(tmp_path / "set"), "native", maps=tmp_path / "maps")
    saved = cv2.imread(str(tmp_path / "maps" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert saved.dtype == np.uint16
    with torch.no_grad():
        mask = deployable(torch.from_numpy(spotted())[None, None])[0, 0].numpy()
    assert np.abs(saved / 65535 - mask).max() < 1e-5


@pytest.mark.parametrize("name", ["fkrw", "ipi", "nipps", "ript"])
def test_what_takes_as_many_steps_as_needed_is_not_exported(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=f"{name.upper()}.* takes as many steps as a frame needs"):
        export_checkpoint(checkpoint(tmp_path, name), tmp_path / "model.onnx", size=SIZE)
    assert not (tmp_path / "model.onnx").exists()


def exported(folder: Path, name: str, options: dict[str, object]) -> tuple[Path, Contract]:
    detector = entry(name)
    chosen = detector.options(**options)
    contract = Contract(
        input=detector.published_input(chosen),
        output=detector.output(0.5),
        provenance=Provenance(detector=name, network=chosen),
    )
    contract = contract_for(contract, 1, SIZE)
    deployable = detector.deployable(detector.build(**chosen), contract.input).eval()
    model, _ = onnx_from_torch(deployable, contract)
    assert largest_difference(model, deployable, contract)["mask"] <= TOLERANCE
    save_model(folder / f"{name}.onnx", model)
    return folder / f"{name}.onnx", contract


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "options"), EXPORTED)
def test_a_method_compiles_in_fp32_and_fp16(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path, contract = exported(tmp_path, name, options)
    operators = {node.op_type for node in load_model(path).graph.node}
    assert operators.isdisjoint({"NonZero", "Loop", "If", "GatherND", "ScatterND"})
    half_model(path, half := tmp_path / "half.onnx")
    frames = sample_frames(contract, *SIZE)
    results = []
    for one in (path, half):
        with OrtSession(one) as session:
            results.append(session.run({"frames": frames})["mask"])
    difference = np.abs(results[0] - results[1]).max()
    # WLDM's contrast is a quotient of small differences, which the 11 bits of FP16 do not carry: a finite map, no more.
    assert difference < (0.2 if name == "wldm" else 0.01)
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    for one in (path, half):
        assert compile_gate(one, ("8.9",)).proofs[0].kernels > 0


@pytest.mark.slow
def test_one_file_takes_frames_of_every_size(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "mpcm", "scale=deviation")
    export_checkpoint(path, tmp_path / "mpcm.onnx")
    contract = read_contract(tmp_path / "mpcm.onnx")
    assert contract.input.is_dynamic and contract.output.tensors[0].shape == ["N", 1, "H", "W"]
    deployable, _ = load_deployable(path)
    with OrtSession(tmp_path / "mpcm.onnx") as session:
        for size in ((33, 57), (96, 64)):
            frames = sample_frames(contract, *size)
            with torch.no_grad():
                expected = deployable(torch.from_numpy(frames)).numpy()
            assert np.abs(session.run({"frames": frames})["mask"] - expected).max() <= TOLERANCE
