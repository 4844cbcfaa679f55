"""What `irforge build` promises, with TensorRT-RTX compiling in the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from irforge.artifact import load_model, read_contract
from irforge.contract import METADATA_KEY
from irforge.errors import ArtifactError, BuildError, CheckFailed, EnvironmentFault, UsageError
from irforge.files import sha256_of_file
from irforge.runtime import engines
from irforge.runtime.backends.device import Gpu, gpus
from irforge.runtime.compilers import child
from irforge.runtime.compilers.child import compile_in_child
from irforge.runtime.compilers.request import BuildRequest
from irforge.runtime.compilers.targets import parse_targets
from irforge.runtime.compilers.trtexec import trtexec_commands
from irforge.runtime.engines import BuildOptions, build_engine, compile_gate
from irforge.runtime.sidecar import read_sidecar

ConvModel = Callable[..., Path]
ROOT = Path(__file__).parents[2]
ADA = BuildOptions(targets=("8.9",))

needs_rtx = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import tensorrt_rtx_bindings"], capture_output=True).returncode != 0,
    reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')",
)


def replace_graph(path: Path, source: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = load_model(source)
    change(model)
    onnx.save(model, path)
    return path


@needs_rtx
def test_an_engine_comes_with_a_sidecar_that_vouches_for_it(conv_model: ConvModel, tmp_path: Path) -> None:
    model, engine = conv_model("fp16"), tmp_path / "chain.rtx.engine"
    build_engine(model, engine, ADA)
    sidecar = read_sidecar(engine)
    assert sidecar.engine_sha256 == sha256_of_file(engine)
    assert sidecar.onnx.sha256 == sha256_of_file(model)
    assert sidecar.contract == read_contract(model)
    assert sidecar.compute_capabilities == ["8.9"] and sidecar.runtime == "TensorRT-RTX"
    assert "trtexec, Triton and DeepStream do not" in sidecar.loaders
    assert sidecar.proofs[0].share("fp16") == 1
    assert METADATA_KEY in json.loads((tmp_path / "chain.rtx.engine.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"chain.rtx.engine", "chain.rtx.engine.json"}


@needs_rtx
def test_one_plan_serves_all_five_targets_by_default(conv_model: ConvModel, tmp_path: Path) -> None:
    if gpus():
        pytest.skip("with a GPU the default is that GPU")
    model, engine = conv_model(), tmp_path / "chain.rtx.engine"
    command = [sys.executable, str(ROOT / "runtime" / "build.py"), str(model), "-o", str(engine)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert read_sidecar(engine).compute_capabilities == ["7.5", "8.0", "8.6", "8.9", "12.0"]
    assert "kernels a frame" in done.stdout and "trtexec --onnx=" in done.stdout


@needs_rtx
@pytest.mark.parametrize(("capability", "runs"), [("9.0", False), ("8.9", True)])
def test_a_plan_for_other_machines_says_that_it_does_not_run_here(
    capability: str, runs: bool, conv_model: ConvModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "gpus", lambda: (Gpu("some GPU", capability, 2**36),))
    sidecar = build_engine(conv_model(), tmp_path / "x.rtx.engine", ADA)
    assert any("does not run on the GPU here, SM 9.0 (Hopper)" in note for note in sidecar.notes) is not runs


@needs_rtx
def test_an_int8_graph_is_told_when_turing_costs_it_its_int8(conv_model: ConvModel, tmp_path: Path) -> None:
    model = conv_model("int8")
    for targets, is_int8 in ((("7.5", "8.9"), False), (("8.9",), True)):
        sidecar = build_engine(model, tmp_path / "x.rtx.engine", BuildOptions(targets=targets))
        assert (sidecar.proofs[0].share("int8", writes=False) == 1) is is_int8
        assert any("leave 7.5 out" in note for note in sidecar.notes) is not is_int8


@needs_rtx
def test_a_free_batch_and_size_become_the_profile_of_the_contract(conv_model: ConvModel, tmp_path: Path) -> None:
    model = conv_model(batch="N", height="H", width="W")
    options = BuildOptions(targets=("8.9",), batch=(1, 2, 4))
    sidecar = build_engine(model, tmp_path / "x.rtx.engine", options)
    assert sidecar.profile == {"frames": [[1, 1, 32, 32], [2, 1, 64, 64], [4, 1, 96, 96]]}
    assert sidecar.proofs[0].shapes == {"frames": [2, 1, 64, 64]}
    assert "--maxShapes=frames:4x1x96x96" in sidecar.trtexec["10"]


@needs_rtx
def test_a_shortfall_of_precision_leaves_nothing_behind(conv_model: ConvModel, tmp_path: Path) -> None:
    options = BuildOptions(targets=("8.9",), require={"int8": 0.9})
    with pytest.raises(CheckFailed, match="int8"):
        build_engine(conv_model("fp16"), tmp_path / "x.rtx.engine", options)
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_the_gate_answers_without_keeping_an_engine(conv_model: ConvModel) -> None:
    model = conv_model()
    assert compile_gate(model, ("8.0",)).proofs[0].share("fp32") == 1
    assert [path.name for path in model.parent.iterdir()] == [model.name]


@needs_rtx
def test_turing_is_skipped_with_the_reason_where_only_it_refuses(conv_model: ConvModel, tmp_path: Path) -> None:
    def add_product(model: onnx.ModelProto) -> None:
        weight = helper.make_tensor("weight", TensorProto.FLOAT, [48, 48], [0.0] * 48 * 48)
        model.graph.initializer.append(weight)
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("MatMul", ["before", "weight"], ["mask"], name="linear"))

    model = replace_graph(tmp_path / "linear.onnx", conv_model(), add_product)
    sidecar = build_engine(model, tmp_path / "x.rtx.engine", BuildOptions(targets=("7.5", "8.9")))
    assert sidecar.compute_capabilities == ["8.9"]
    assert "FP32 GEMM" in sidecar.skipped_targets["7.5"]
    with pytest.raises(BuildError, match="1x1 convolutions"):
        build_engine(model, tmp_path / "y.rtx.engine", BuildOptions(targets=("7.5",)))
    assert not (tmp_path / "y.rtx.engine").exists()


def test_each_gate_names_itself_when_it_refuses(conv_model: ConvModel, tmp_path: Path) -> None:
    def add_nonzero(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("NonZero", ["mask"], ["where"], name="search"))

    def set_opset(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 99

    for name, change, gate in (("nonzero", add_nonzero, "lint.*search"), ("opset", set_opset, "ONNX Runtime")):
        model = replace_graph(tmp_path / f"{name}.onnx", conv_model(), change)
        with pytest.raises(BuildError, match=gate):
            build_engine(model, tmp_path / "x.rtx.engine", ADA)
    assert not list(tmp_path.glob("*engine*"))


@needs_rtx
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"], ids=["empty", "html"])
def test_garbage_that_the_parser_takes_does_not_pass(content: bytes, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(content)
    request = BuildRequest(backend="tensorrt_rtx", onnx=str(garbage), plan=str(tmp_path / "plan"), targets=("8.9",))
    with pytest.raises(BuildError, match=r"parser|compiler"):
        compile_in_child(request)
    assert not (tmp_path / "plan").exists()


@needs_rtx
def test_a_crash_of_the_parser_is_an_error_with_its_signal(tmp_path: Path) -> None:
    body = helper.make_function(
        "own",
        "Again",
        ["x"],
        ["y"],
        [helper.make_node("Again", ["x"], ["y"], domain="own")],
        [helper.make_opsetid("", 17)],
    )
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, 4])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Again", ["frames"], ["mask"], domain="own")], "g", [frames], [mask])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = tmp_path / "recursive.onnx"
    path.write_bytes(helper.make_model(graph, functions=[body], opset_imports=opsets).SerializeToString())
    request = BuildRequest(backend="tensorrt_rtx", onnx=str(path), plan=str(tmp_path / "plan"), targets=("8.9",))
    with pytest.raises(BuildError, match=r"crashed.*SIG.*last log line"):
        compile_in_child(request)


@needs_rtx
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(conv_model: ConvModel) -> None:
    request = BuildRequest(backend="tensorrt_rtx", onnx=str(conv_model()), plan="/dev/full", targets=("8.9",))
    with pytest.raises(EnvironmentFault, match="No space left"):
        compile_in_child(request)


def test_an_interrupted_build_takes_its_compiler_along(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        child._run([sys.executable, "-c", script], tmp_path / "log")
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_an_onnx_file_without_a_contract_names_adopt(tmp_path: Path, conv_model: ConvModel) -> None:
    bare = replace_graph(tmp_path / "bare.onnx", conv_model(), lambda model: model.ClearField("metadata_props"))
    with pytest.raises(ArtifactError, match="adopt"):
        build_engine(bare, tmp_path / "x.rtx.engine", ADA)


@pytest.mark.parametrize(
    ("text", "words"),
    [("9.9", "12.0"), ("8.7", "Orin"), ("11.0", "Thor"), ("fast", "8.6"), (",", "8.9")],
)
def test_an_unknown_target_lists_the_known_or_says_where_to_build(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_targets(text)


def test_targets_are_read_in_any_spelling_and_order() -> None:
    assert parse_targets("sm_89, 7.5,SM120,8.9") == ("7.5", "8.9", "12.0")


@pytest.mark.parametrize("batch", [(0, 1, 1), (2, 1, 4), (1, 4, 2)])
def test_batch_bounds_out_of_order_are_refused(
    batch: tuple[int, int, int], conv_model: ConvModel, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--batch"):
        build_engine(conv_model(batch="N"), tmp_path / "x.rtx.engine", BuildOptions(targets=("8.9",), batch=batch))


def test_a_fixed_batch_cannot_be_changed(conv_model: ConvModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fixed at 1"):
        build_engine(conv_model(), tmp_path / "x.rtx.engine", BuildOptions(targets=("8.9",), batch=(1, 2, 4)))


def test_less_than_no_workspace_is_refused_before_a_compiler_starts(conv_model: ConvModel, tmp_path: Path) -> None:
    command = [sys.executable, "runtime/build.py", str(conv_model()), "-o", str(tmp_path / "b.rtx.engine")]
    done = subprocess.run([*command, "--workspace", "-5"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == UsageError.exit_code
    assert "--workspace" in done.stderr and done.stderr.count("\n") == 1


def test_an_output_of_another_suffix_is_refused(conv_model: ConvModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.rtx\.engine"):
        build_engine(conv_model(), tmp_path / "x.plan", ADA)


def test_tensorrt_without_a_gpu_says_what_can_be_built_instead(conv_model: ConvModel, tmp_path: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EnvironmentFault, match=r"\.rtx\.engine"):
        build_engine(conv_model(), tmp_path / "x.engine", BuildOptions())


def test_trtexec_commands_differ_as_the_versions_do() -> None:
    commands = trtexec_commands(
        "a b.onnx",
        "m.engine",
        {"frames": ((1, 1, 8, 8), (2, 1, 8, 8), (4, 1, 8, 8))},
        timing_cache="t.cache",
        workspace_bytes=64 * 2**20,
    )
    assert "--stronglyTyped" in commands["10"] and "--useCudaGraph" in commands["10"]
    assert not {"--stronglyTyped", "--useCudaGraph", "--fp16", "--int8"} & set(commands["11"].split())
    for command in commands.values():
        assert "'--onnx=a b.onnx'" in command and "--optShapes=frames:2x1x8x8" in command
        assert "--timingCacheFile=t.cache" in command and "--memPoolSize=workspace:64M" in command
