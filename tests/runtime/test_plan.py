"""What the plan reader promises, on plans that TensorRT-RTX compiles in the test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.errors import CheckFailed, UsageError
from irforge.graph import macs
from irforge.runtime.compilers.child import compile_in_child
from irforge.runtime.compilers.request import BuildRequest
from irforge.runtime.plan import read_plan
from irforge.runtime.program import program_texts
from irforge.runtime.proof import check_requirement, parse_requirement

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")

ALL = ("7.5", "8.0", "8.6", "8.9", "12.0")
Compile = Callable[..., tuple[bytes, list[str]]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Plan and compiler log of an ONNX file for some targets; each is compiled once."""

    @cache
    def compile_once(
        model: Path,
        targets: tuple[str, ...] = ("8.9",),
        profile: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None,
    ) -> tuple[bytes, list[str]]:
        plan = tmp_path_factory.mktemp("plan") / "x.rtx.engine"
        request = BuildRequest(
            backend="tensorrt_rtx",
            onnx=str(model),
            plan=str(plan),
            targets=targets,
            profile={"frames": profile} if profile else {},
        )
        _, log = compile_in_child(request)
        return plan.read_bytes(), log

    return compile_once


@pytest.fixture(scope="module")
def chains(conv_model: Callable[..., Path]) -> dict[str, Path]:
    return {precision: conv_model(precision) for precision in ("fp32", "fp16", "int8")}


def test_macs_and_counts_are_those_of_the_graph(chains: dict[str, Path], compiled: Compile) -> None:
    proof = read_plan(compiled(chains["fp32"])[0]).proofs[0]
    expected = macs(onnx.load(chains["fp32"]))
    assert proof.macs == sum(expected.values())
    assert sum(group.count for group in proof.convolutions) == len(expected) == 3
    assert proof.shapes == {"frames": [1, 1, 32, 48]}
    assert proof.summary == proof.writes_summary == "fp32 100.0 %"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_floating_graph_reads_and_writes_its_own_type(
    precision: str, chains: dict[str, Path], compiled: Compile
) -> None:
    proof = read_plan(compiled(chains[precision])[0]).proofs[0]
    assert proof.share(precision) == 1
    assert proof.constant_bytes[precision] >= sum(
        numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(chains[precision]).graph.initializer
    )


def test_int8_is_told_from_what_only_looks_like_it(chains: dict[str, Path], compiled: Compile) -> None:
    ada = read_plan(compiled(chains["int8"])[0]).proofs[0]
    turing = read_plan(compiled(chains["int8"], ("7.5",))[0]).proofs[0]
    assert ada.share("int8", writes=False) == 1
    assert {group.weights for group in ada.convolutions} == {"int8"}
    assert turing.share("int8", writes=False) == 0
    written = sum(group.macs for group in ada.convolutions if group.writes == "int8")
    assert ada.share("int8") == written / ada.macs


def test_one_program_for_five_targets_names_all_five(chains: dict[str, Path], compiled: Compile) -> None:
    report = read_plan(compiled(chains["fp32"], ALL)[0])
    assert [proof.compute_capabilities for proof in report.proofs] == [list(ALL)]
    assert report.for_target("8.6") is report.proofs[0]
    assert report.for_target("8.7") is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_peak_memory_is_what_the_compiler_logs(precision: str, chains: dict[str, Path], compiled: Compile) -> None:
    plan, log = compiled(chains[precision])
    logged = next(int(line.split()[-2]) for line in log if "Total Activation Memory" in line)
    assert read_plan(plan).proofs[0].peak_bytes == pytest.approx(logged, abs=1024)


def test_half_the_precision_moves_less_memory(chains: dict[str, Path], compiled: Compile) -> None:
    full, half = (read_plan(compiled(chains[precision])[0]).proofs[0] for precision in ("fp32", "fp16"))
    assert full.bytes_written is not None and half.bytes_written is not None
    assert half.bytes_written < 0.7 * full.bytes_written


def test_traffic_of_a_convolution_is_its_tensors(chains: dict[str, Path], compiled: Compile) -> None:
    kernels = read_plan(compiled(chains["fp32"])[0]).kernels[0]
    pair = next(kernel for kernel in kernels if kernel.macs == 32 * 48 * 32 * 32 * 9)
    feature_map, weights = 32 * 48 * 32 * 4, 32 * 32 * 9 * 4
    assert pair.bytes_written == feature_map
    assert feature_map + weights <= (pair.bytes_read or 0) < feature_map + weights + 1024
    assert any("Conv" in layer for layer in pair.layers)


def test_free_sizes_are_worked_out_for_the_shapes_given(
    conv_model: Callable[..., Path], chains: dict[str, Path], compiled: Compile
) -> None:
    free = conv_model("fp32", batch="N", height="H", width="W")
    plan, _ = compiled(free, ("8.9",), ((1, 1, 32, 32), (1, 1, 64, 64), (2, 1, 96, 96)))
    fixed = read_plan(compiled(chains["fp32"])[0]).proofs[0]
    at_size = read_plan(plan, {"frames": (1, 1, 32, 48)}).proofs[0]
    assert (at_size.macs, at_size.shapes) == (fixed.macs, fixed.shapes)
    assert at_size.bytes_written == pytest.approx(fixed.bytes_written, rel=0.05)
    unknown = read_plan(plan).proofs[0]
    assert unknown.bytes_read is None and unknown.kernels == at_size.kernels


@pytest.mark.parametrize(
    ("kind", "weight", "attributes", "expected"),
    [
        ("Conv", (32, 1, 3, 3), {"group": 32, "pads": [1, 1, 1, 1]}, 32 * 16 * 16 * 9),
        ("ConvTranspose", (32, 8, 2, 2), {"strides": [2, 2]}, 32 * 16 * 16 * 8 * 4),
    ],
    ids=["depthwise", "transposed"],
)
def test_grouped_and_transposed_convolutions_count_right(
    kind: str, weight: tuple[int, ...], attributes: dict[str, object], expected: int, tmp_path: Path, compiled: Compile
) -> None:
    array = np.random.default_rng(0).normal(size=weight).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, "w")],
    )
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    assert read_plan(compiled(path)[0]).proofs[0].macs == expected


@pytest.mark.parametrize(
    "body",
    ["y = MatMul(x, w)", "m = MatMul(x, w) s = Add(m, b) y = Gelu(s)", "m = MatMul(x, w) s = Relu(m) y = MatMul(s, v)"],
    ids=["alone", "with bias and activation", "two"],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_matrix_products_with_weights_count(body: str, precision: str, tmp_path: Path, compiled: Compile) -> None:
    element, dtype = ("float", np.float32) if precision == "fp32" else ("float16", np.float16)
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 20]>
        products ({element}[1, 16, 24, 64] x) => ({element}[N, H, W, C] y) {{ {body} }}"""
    )
    rng = np.random.default_rng(0)
    weights = {"w": (64, 128), "b": (128,), "v": (128, 32)}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(rng.normal(size=shape).astype(dtype), name)
        for name, shape in weights.items()
        if name in read
    )
    path = tmp_path / "products.onnx"
    onnx.save(model, path)
    (proof,) = read_plan(compiled(path)[0]).proofs
    assert proof.macs == sum(macs(model).values())
    assert proof.share(precision, writes=False) == 1


def test_a_plan_of_another_version_is_said_to_be_unknown(chains: dict[str, Path], compiled: Compile) -> None:
    plan = bytearray(compiled(chains["fp32"])[0])
    plan[25] += 1
    report = read_plan(bytes(plan))
    assert not report.available and "1.8.1" in report.reason


@pytest.mark.parametrize("content", [b"", b"vtrt", b"\x00" * 4096, b"vtrt" + b"\x00" * 4096])
def test_what_is_no_plan_is_said_to_be_none(content: bytes) -> None:
    report = read_plan(content)
    assert not report.available and report.reason and not report.proofs


def test_a_plan_cut_off_anywhere_gives_a_reason(chains: dict[str, Path], compiled: Compile) -> None:
    plan, _ = compiled(chains["fp32"])
    start = plan.find(b"header {")
    for length in (40, start, start + 100, start + 4000):
        assert read_plan(plan[:length]).reason


def test_a_changed_text_is_read_or_refused_but_never_crashes(chains: dict[str, Path], compiled: Compile) -> None:
    plan, _ = compiled(chains["int8"])
    start, length = plan.find(b"header {"), len(next(iter(program_texts(plan))))
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(plan)
        changed[start + int(random.integers(8, length))] = int(random.choice(list(b'{}"= x0')))
        refused += not read_plan(bytes(changed)).available
    assert refused


def test_a_requirement_is_held_against_macs_that_read_and_write(chains: dict[str, Path], compiled: Compile) -> None:
    proofs = list(read_plan(compiled(chains["fp16"])[0]).proofs)
    check_requirement(proofs, parse_requirement("fp16=0.9"), "x.engine")
    with pytest.raises(CheckFailed, match=r"0\.0 %.*int8, 90\.0 %"):
        check_requirement(proofs, parse_requirement("int8=0.9"), "x.engine")
    int8 = list(read_plan(compiled(chains["int8"])[0]).proofs)
    check_requirement(int8, parse_requirement("int8:read=1"), "x.engine")
    with pytest.raises(CheckFailed, match="nothing proves"):
        check_requirement([], parse_requirement("int8=0.9"), "x.engine")


@pytest.mark.parametrize("text", ["int8", "int7=0.5", "int8=2", "int8=much", "int8:write=1"])
def test_a_requirement_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"int8=0\.9"):
        parse_requirement(text)
