"""A module becomes a graph that its contract describes, or nothing at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from irforge.artifact import read_contract
from irforge.contract import (
    Contract,
    InputSpec,
    Normalization,
    OutputSpec,
    PadToMultiple,
    Provenance,
    Range,
    Squash,
    TensorSpec,
)
from irforge.errors import CheckFailed, ExportError, UsageError
from irforge.export.convert import contract_for, onnx_from_torch
from irforge.export.verify import largest_difference, sample_frames
from irforge.graph import Graph
from irforge.lint import lint

STRIDE = 4


class Tiny(nn.Module):
    """What a detector is made of, on two scales: stem, batch norm, shared perceptron, pooling, upsampling, heads."""

    stride = STRIDE

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(2, 8, 1, bias=False)
        self.head = nn.Conv2d(16, 1, 3, padding=1)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)
        self.register_buffer("mean", torch.tensor([123.7, 116.3, 103.5]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([58.4, 57.1, 57.4]).view(1, 3, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        x = self.stem((frames.float() - self.mean) / self.std)
        x = torch.relu(self.norm(self.conv(x)))
        pooled = (x.mean(dim=(2, 3), keepdim=True), nn.functional.adaptive_max_pool2d(x, 1))
        gates = [self.outer(torch.relu(self.inner(value))) for value in pooled]
        x = torch.sigmoid(gates[0] + gates[1]) * x
        low = nn.functional.max_pool2d(x, STRIDE)
        up = nn.functional.interpolate(low, scale_factor=float(STRIDE), mode="bilinear", align_corners=True)
        return torch.sigmoid(self.head(torch.cat([x, up], dim=1)))


def _contract(**fields: object) -> Contract:
    spec = {"height": 24, "width": 32, "fit": Squash(), "normalization": Normalization(mean=114, std=57)} | fields
    mask = TensorSpec(name="mask", dtype="float32", shape=["N", 1, "H", "W"], meaning="probability")
    output = OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[mask])
    return Contract(input=InputSpec(**spec), output=output, provenance=Provenance(detector="tiny"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny().eval()


@pytest.fixture(scope="module")
def exported(tiny: Tiny) -> tuple[onnx.ModelProto, dict[str, int]]:
    return onnx_from_torch(tiny, _contract())


def test_the_graph_takes_uint8_frames_of_any_number_and_gives_the_mask(
    exported: tuple[onnx.ModelProto, object],
) -> None:
    graph = exported[0].graph
    sides = [
        [side.dim_param or side.dim_value for side in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    ]
    assert [graph.input[0].name, graph.output[0].name] == ["frames", "mask"]
    assert sides == [["N", 1, 24, 32], ["N", 1, 24, 32]]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_jetpack_6_can_read_it(exported: tuple[onnx.ModelProto, object]) -> None:
    model = exported[0]
    assert Graph(model).opset == 20
    assert model.ir_version <= 10
    assert lint(model) == []


def test_normalisation_batch_norm_and_global_pooling_are_folded(
    exported: tuple[onnx.ModelProto, dict[str, int]],
) -> None:
    model, counts = exported
    graph = Graph(model)
    kinds = [node.op_type for node in model.graph.node]
    assert not {"BatchNormalization", "Sub", "Div", "Expand", "Constant", "Identity"} & set(kinds)
    assert counts["fold_affine_before"] == 2
    assert counts["merge_shared_perceptrons"] == 1
    assert graph.array(graph.of_type("Conv")[0].input[1]).shape == (8, 1, 1, 1)
    # The one max pooling that stays is the network's own; the global one is a reduction.
    assert (kinds.count("MaxPool"), kinds.count("ReduceMax")) == (1, 1)


def test_no_stack_trace_or_path_of_this_machine_leaves_with_the_file(exported: tuple[onnx.ModelProto, object]) -> None:
    content = exported[0].SerializeToString()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_the_contract_inside_has_the_graphs_output_shape(exported: tuple[onnx.ModelProto, object]) -> None:
    assert read_contract(exported[0]).output.tensors[0].shape == ["N", 1, 24, 32]


def test_parity_is_measured_and_a_wrong_graph_is_refused(tiny: Tiny, exported: tuple[onnx.ModelProto, object]) -> None:
    model = exported[0]
    assert largest_difference(model, tiny, _contract())["mask"] < 1e-5
    for value in (0.9, np.nan):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        head = next(t for t in wrong.graph.initializer if t.dims == [1, 16, 3, 3])
        array = onnx.numpy_helper.to_array(head).copy()
        array[0, 0] *= value
        head.CopyFrom(onnx.numpy_helper.from_array(array, head.name))
        with pytest.raises(CheckFailed, match="differs by"):
            largest_difference(wrong, tiny, _contract())


def test_dynamic_size_is_exported_and_checked_at_two_sizes(tiny: Tiny) -> None:
    contract = contract_for(_contract(), STRIDE, (24, 40), dynamic_size=True)
    assert contract.input.height == Range(min=24, opt=24, max=1024, multiple=4)
    assert contract.input.fit == PadToMultiple(multiple=4)
    model, _ = onnx_from_torch(tiny, contract)
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["N", 1, "H", "W"]
    assert read_contract(model).output.tensors[0].shape == ["N", 1, "H", "W"]
    assert largest_difference(model, tiny, contract)["mask"] < 1e-5
    assert lint(model) == []


def test_a_door_of_raw_counts_is_float(tiny: Tiny) -> None:
    contract = _contract(door="float32", bit_depth=14)
    model, _ = onnx_from_torch(tiny, contract)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert "Cast" not in [node.op_type for node in model.graph.node]
    assert largest_difference(model, tiny, contract)["mask"] < 1e-5


def test_another_size_pads_unless_told_to_resize() -> None:
    padded = contract_for(_contract(), STRIDE, (512, 640)).input
    assert (padded.size, padded.fit) == ((512, 640), PadToMultiple(multiple=4))
    assert contract_for(_contract(), STRIDE, (512, 640), "squash").input.fit == Squash()
    assert contract_for(_contract(), STRIDE) == _contract()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (30, 32)}, "multiples of 4"),
        ({"size": (0, 32)}, "multiples of 4"),
        ({"fit": "crop"}, "no fit 'crop'"),
        ({"fit": "squash", "dynamic_size": True}, "needs a fixed size"),
    ],
)
def test_sizes_and_fits_that_cannot_be_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        contract_for(_contract(), STRIDE, **arguments)  # type: ignore[arg-type]


class Branching(Tiny):
    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames) if frames.sum() > 0 else frames.float()


def test_control_flow_on_pixels_is_named_as_the_cause() -> None:
    with pytest.raises(ExportError, match="torch cannot export detector 'tiny'"):
        onnx_from_torch(Branching(), _contract())


def test_an_opset_that_jetpack_does_not_read_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="opset 22"):
        onnx_from_torch(tiny, _contract(), opset=22)


def test_sample_frames_hold_a_one_pixel_target_and_every_level() -> None:
    frames = sample_frames(_contract(), 32, 48)
    assert (frames.dtype, frames.shape) == (np.uint8, (4, 1, 32, 48))
    assert frames[0].max() == 255
    assert (frames[0] > 128).sum() == 1
    assert np.ptp(frames[2]) > 240
    counts = sample_frames(_contract(door="float32", bit_depth=14), 32, 48)
    assert counts.dtype == np.float32
    assert counts.max() == 2**14 - 1
