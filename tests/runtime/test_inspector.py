"""Engine inspector JSON as NVIDIA documents it for TensorRT 10 and 11: no engine can be built here to take it from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from irforge.runtime.inspector import read_inspector
from irforge.runtime.plan import PlanReport


def tensor(name: str, dims: list[int], kind: str, version: int) -> dict[str, Any]:
    if version == 10:
        return {"Name": name, "Location": "Device", "Dimensions": dims, "Format/Datatype": kind}
    return {"Name": name, "Location": "Device", "Dimensions": dims, "Format": "Row major linear", "DataType": kind}


def convolution(version: int, **changes: Any) -> dict[str, Any]:
    kinds = {
        10: ("Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP16 format"),
        11: ("Int8", "Half"),
    }
    reads, writes = kinds[version]
    layer = {
        "Name": "node_conv + node_relu",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("x", [1, 32, 16, 24], reads, version)],
        "Outputs": [tensor("y", [1, 64, 8, 12], writes, version)],
        "ParameterType": "Convolution",
        "Kernel": [3, 3],
        "Stride": [2, 2],
        "OutMaps": 64,
        "Groups": 1,
        "Weights": {"Type": "Int8", "Count": 64 * 32 * 9},
        "Bias": {"Type": "Float", "Count": 64},
    }
    return layer | changes


def read(*layers: Any) -> PlanReport:
    return read_inspector(
        json.dumps({"Layers": list(layers), "Bindings": ["x", "y"]}),
        tool="TensorRT 10.3.0",
        target="8.7",
        shapes={"x": (1, 32, 16, 24)},
        peak_bytes=1000,
    )


@pytest.mark.parametrize("version", [10, 11])
def test_types_macs_and_traffic_of_a_convolution(version: int) -> None:
    skipped = {"Name": "copy", "LayerType": "NoOp", "Inputs": [], "Outputs": []}
    proof = read(skipped, convolution(version)).proofs[0]
    assert (proof.kernels, proof.macs) == (1, 64 * 8 * 12 * 32 * 9)
    assert proof.share("int8", writes=False) == 1 and proof.share("int8") == 0
    assert proof.bytes_read == 32 * 16 * 24 + 64 * 32 * 9
    assert proof.bytes_written == 64 * 8 * 12 * 2
    assert proof.constant_bytes == {"fp32": 64 * 4, "int8": 64 * 32 * 9}
    assert (proof.peak_bytes, proof.compute_capabilities) == (1000, ["8.7"])


def test_groups_and_transposed_convolutions_count_right() -> None:
    grouped = convolution(10, Groups=32, Weights={"Type": "Int8", "Count": 64 * 9})
    assert read(grouped).proofs[0].macs == 64 * 8 * 12 * 9
    transposed = convolution(10, LayerType="CaskDeconvolutionV2", ParameterType="Deconvolution", Kernel=[2, 2])
    assert read(transposed).proofs[0].macs == 32 * 16 * 24 * 64 * 4


def test_a_convolution_without_a_kernel_is_sized_by_its_weights() -> None:
    layer = convolution(10)
    del layer["Kernel"]
    assert read(layer).proofs[0].macs == convolution(10)["Weights"]["Count"] * 8 * 12


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (["node_conv + node_relu"], "profiling verbosity"),
        ([convolution(10, Kernel=None, Weights=None)], "not as known"),
        ([{"LayerType": "conv", "Inputs": [tensor("x", [1, 2, 3, 4], "Half", 10)], "Outputs": []}], "how large"),
        ([convolution(10, Inputs=[{"Dimensions": ["N"]}])], "not as known"),
    ],
    ids=["names only", "no kernel", "no output", "no sizes"],
)
def test_what_is_not_understood_gives_a_reason_and_no_figure(layers: list[Any], words: str) -> None:
    report = read(*layers)
    assert not report.available and words in report.reason


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": 3}', "{}"])
def test_no_layer_list_gives_a_reason(text: str) -> None:
    report = read_inspector(text, tool="TensorRT 10.3.0", target="8.7", shapes={}, peak_bytes=None)
    assert not report.available and report.reason
