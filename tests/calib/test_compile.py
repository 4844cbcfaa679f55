"""The compile gate of what the passes write: NVIDIA's ahead-of-time compiler, in a child process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from irforge.artifact import save_model
from irforge.calib.collect import collect_ranges
from irforge.calib.half import half_model
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import save_ranges
from irforge.errors import BuildError
from irforge.runtime.engines import BuildOptions, build_engine
from irforge.runtime.proof import PrecisionProof
from tests.calib.conftest import attentive_net

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')",
)

Proof = Callable[[Path, str], PrecisionProof]
SIDE = 64


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attentive network at a size where maps outweigh everything else."""
    path = tmp_path_factory.mktemp("compile") / "fp32.onnx"
    save_model(path, attentive_net().model(side=SIDE))
    return path


@pytest.fixture(scope="module")
def ranges(fp32: Path, frame_folder: Path) -> Path:
    path = fp32.with_name("ranges.json")
    save_ranges(path, collect_ranges(fp32, str(frame_folder), limit=2, threads=1))
    return path


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    made: dict[Path, PrecisionProof] = {}

    def build(model: Path, target: str = "8.0") -> PrecisionProof:
        if model not in made:
            engine = tmp_path_factory.mktemp("engine") / "m.rtx.engine"
            sidecar = build_engine(model, engine, BuildOptions(targets=(target,)))
            assert not sidecar.proof_unavailable
            (made[model],) = sidecar.proofs
        return made[model]

    return build


@pytest.fixture(scope="module")
def int8(fp32: Path, ranges: Path) -> Path:
    quantize_model(fp32, fp32.with_name("int8.onnx"), ranges)
    return fp32.with_name("int8.onnx")


@needs_rtx
def test_nine_tenths_of_the_work_reads_int8_and_writes_no_fp32(int8: Path, proof: Proof) -> None:
    found = proof(int8, "8.0")
    assert found.share("int8", writes=False) > 0.9
    assert {group.writes for group in found.convolutions if group.reads == "int8"} <= {"int8", "fp16"}


@needs_rtx
def test_scales_on_an_axis_make_this_compiler_write_fp32(fp32: Path, ranges: Path, proof: Proof) -> None:
    """Why `factored` is the default. Should a later release do better, this fails and it can be judged anew."""
    quantize_model(fp32, fp32.with_name("axis.onnx"), ranges, channel_scales="axis")
    found = proof(fp32.with_name("axis.onnx"), "8.0")
    assert found.share("int8", writes=False) > 0.9
    assert {group.writes for group in found.convolutions if group.reads == "int8"} == {"fp32"}


@needs_rtx
def test_each_precision_moves_fewer_bytes_than_the_one_above(fp32: Path, int8: Path, proof: Proof) -> None:
    half_model(fp32, fp32.with_name("fp16.onnx"))
    proofs = [proof(path, "8.0") for path in (fp32, fp32.with_name("fp16.onnx"), int8)]
    moved = [(found.bytes_read or 0) + (found.bytes_written or 0) for found in proofs]
    assert moved[0] > moved[1] > moved[2] > 0
    weights = [sum(found.constant_bytes.values()) for found in proofs]
    assert weights[0] > weights[1] > weights[2] > 0


@needs_rtx
def test_the_cpu_form_does_not_reach_the_compiler(fp32: Path, ranges: Path, tmp_path: Path) -> None:
    quantize_model(fp32, tmp_path / "cpu.onnx", ranges, target="cpu")
    with pytest.raises(BuildError):
        build_engine(tmp_path / "cpu.onnx", tmp_path / "cpu.rtx.engine", BuildOptions(targets=("8.0",)))
    assert not (tmp_path / "cpu.rtx.engine").exists()
