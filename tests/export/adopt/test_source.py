"""What adopt refuses: one line each, which says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.errors import ArtifactError, ExportError, IrforgeError, UsageError
from irforge.export.adopt.adopt import adopt
from irforge.export.adopt.deployable import adopt_model
from irforge.export.adopt.door import Frames
from irforge.export.adopt.observation import Choices
from irforge.export.adopt.source import load_source
from tests.export.adopt.strangers import ULTRALYTICS

Stranger = Callable[..., Path]
SIDE = 64
TABLE = np.concatenate(
    [np.random.default_rng(0).uniform(4, 60, (1, 84, 2)), np.full((1, 84, 2), 9.0), np.full((1, 84, 2), 0.3)], 2
).astype(np.float32)


def refused(error: type[IrforgeError], path: Path, *words: str, frames: Frames | None = None, **choices: Any) -> None:
    size = choices.pop("size", None)
    with pytest.raises(error) as caught:
        adopt_model(path, frames or Frames(normalize="unit", fit="squash"), Choices(**choices), size=size)
    line = caught.value.line
    assert "\n" not in line and caught.value.remedy
    for word in words:
        assert word in line, line


def test_a_file_with_a_contract(spot_model: Callable[..., Path]) -> None:
    refused(ArtifactError, spot_model(), "has a contract already")


def test_no_detection_output(stranger: Stranger) -> None:
    path = stranger({"features": np.zeros((1, 1280), np.float32)})
    refused(ExportError, path, "features N x 1280", "--layout")


def test_plugin_operators(stranger: Stranger) -> None:
    for domain, op, words in (
        ("TRT", "EfficientNMS_TRT", ("TRT::EfficientNMS_TRT", "Export without NMS")),
        ("", "EfficientNMS_TRT", ("EfficientNMS_TRT", "Export without NMS")),
        ("com.microsoft", "FusedConv", ("before ONNX Runtime optimised it",)),
        ("mine", "Gate", ("mine::Gate", "function body")),
    ):
        plugin = helper.make_node(op, ["pixels"], ["made"], domain=domain)
        refused(ExportError, stranger({"out": TABLE}, more=[plugin], domains=[domain] * bool(domain)), *words)


def test_suppression_of_no_fixed_size(stranger: Stranger) -> None:
    select = helper.make_node("NonMaxSuppression", ["out", "out"], ["chosen"])
    refused(ExportError, stranger({"out": TABLE}, more=[select]), "NonMaxSuppression", "nms=False")


def test_an_opset_too_old(stranger: Stranger) -> None:
    refused(ExportError, stranger({"out": TABLE}, opset=9), "opset 9", "opset 20")


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_opsets_that_exporters_write_are_brought_to_what_tensorrt_reads(stranger: Stranger, opset: int) -> None:
    source = load_source(stranger({"out": TABLE}, opset=opset))
    assert source.opset == opset
    assert source.model.opset_import[0].version == max(opset, 18)
    assert source.outputs == {"out": (1, 84, 6)}


def test_a_size_left_free(stranger: Stranger) -> None:
    path = stranger({"out": TABLE}, size=("height", "width"))
    refused(UsageError, path, "leaves its size free", "1 x 3 x height x width", "--size")
    source = load_source(path, (SIDE, SIDE))
    assert (source.height, source.width) == (SIDE, SIDE)
    refused(UsageError, stranger({"out": TABLE}), "fixed at 64x64", size=(32, 32))


def test_external_data_that_is_missing(stranger: Stranger) -> None:
    path = stranger({"out": TABLE})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load_source(path)
    (path.parent / "weights.bin").unlink()
    refused(ArtifactError, path, "weights.bin", "does not exist")


def test_labels_instead_of_probabilities(stranger: Stranger) -> None:
    path = stranger({"labels": np.zeros((1, SIDE, SIDE), np.int64)})
    refused(ExportError, path, "int64 class numbers a pixel", "ArgMax")


def test_weights_that_are_cast_or_quantised_already(stranger: Stranger) -> None:
    path = stranger({"out": TABLE})
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "half"))
    onnx.save(model, path)
    refused(ExportError, path, "half precision", "irforge half")
    quantize = helper.make_node("QuantizeLinear", ["pixels", "scale"], ["q"])
    path = stranger({"out": TABLE}, more=[quantize])
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), "scale"))
    onnx.save(model, path)
    refused(ExportError, path, "quantised already", "irforge quantize")


@pytest.mark.parametrize("through_a_link", [False, True])
def test_the_original_is_not_written_over(stranger: Stranger, through_a_link: bool) -> None:
    path = stranger({"out": TABLE})
    before = path.read_bytes()
    output = path.parent / "elsewhere" / ".." / path.name
    (path.parent / "elsewhere").mkdir()
    if through_a_link:
        output = path.parent / "link.onnx"
        output.symlink_to(path)
    with pytest.raises(UsageError, match="is read, and writing to it would destroy it") as caught:
        adopt(path, output, normalize="unit", fit="squash")
    assert caught.value.remedy and path.read_bytes() == before


def test_a_second_input(stranger: Stranger) -> None:
    path = stranger({"out": TABLE})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    onnx.save(model, path)
    refused(ExportError, path, "'orig_target_sizes' 1 x 2", "without its postprocessing")


@pytest.mark.parametrize(("channels", "words"), [(4, "1 or 3 channels"), (2, "1 or 3 channels")])
def test_channels_that_no_frame_has(stranger: Stranger, channels: int, words: str) -> None:
    refused(ExportError, stranger({"out": TABLE}, channels=channels), words)


def test_another_type_of_input(stranger: Stranger) -> None:
    refused(ExportError, stranger({"out": TABLE}, door=TensorProto.DOUBLE), "double", "float32 input")


def test_a_layout_that_the_outputs_are_not_of(stranger: Stranger) -> None:
    path = stranger({"out": TABLE})
    refused(UsageError, path, "not of layout 'ssd'", "1 3-D outputs", layout="ssd")
    refused(UsageError, path, "not of layout 'logits'", layout="logits")
    refused(UsageError, path, "no layout 'yolo9'", "yolo-e2e", layout="yolo9")
    refused(UsageError, path, "has no output 'boxes'", "out", outputs=("boxes",))
    refused(ExportError, path, "no detections or mask", kind="mask")


def test_another_number_of_classes(stranger: Stranger) -> None:
    refused(ExportError, stranger({"out": TABLE}), "6 features a row", "5 classes", classes=tuple("abcde"))


def test_boxes_that_are_left_to_be_decoded(stranger: Stranger) -> None:
    raw = np.random.default_rng(0).normal(0, 1, (1, 2000, 6)).astype(np.float32)
    refused(ExportError, stranger({"out": raw}), "undecoded", "boxes decoded")


def test_outputs_that_are_not_finite(stranger: Stranger) -> None:
    refused(ExportError, stranger({"out": np.where(TABLE == 9, np.inf, TABLE)}), "not finite", "--normalize")


def test_other_tasks_of_ultralytics(stranger: Stranger) -> None:
    refused(ExportError, stranger({"out": TABLE}, metadata=ULTRALYTICS | {"task": "pose"}), "task 'pose'")


def test_what_cannot_be_found_out_is_asked_for_in_one_line(stranger: Stranger) -> None:
    path = stranger({"out": TABLE})
    refused(UsageError, path, "--normalize", "imagenet", "--fit", "letterbox", frames=Frames())
    refused(UsageError, path, "--fit", frames=Frames(normalize="unit"))
    refused(UsageError, path, "no fit 'crop'", frames=Frames(normalize="unit", fit="crop"))
    refused(UsageError, path, "no scaling", frames=Frames(normalize="minmax", fit="squash"))
    refused(UsageError, path, "does not scale 3 channels", frames=Frames(normalize="1,2/3,4", fit="squash"))
    refused(UsageError, path, "no gain control", frames=Frames("unit", "squash", bit_depth=14, gain="auto"))
