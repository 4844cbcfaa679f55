"""The contract survives every trip and refuses what it cannot mean."""

import json

import pytest

from irforge.contract import (
    ClaheGain,
    Contract,
    InputSpec,
    MinMaxGain,
    Normalization,
    OutputSpec,
    PadToMultiple,
    PercentileGain,
    Provenance,
    Range,
    Squash,
    TensorSpec,
)
from irforge.errors import ArtifactError

NORMALIZATION = Normalization(mean=107.8, std=33.0)


def contract(**input_changes: object) -> Contract:
    fields: dict[str, object] = {"height": 256, "width": 256, "fit": Squash(), "normalization": NORMALIZATION}
    mask = TensorSpec(name="mask", dtype="float32", shape=["N", 1, 256, 256], meaning="probability", unit="1")
    return Contract(
        input=InputSpec(**(fields | input_changes)),
        output=OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[mask]),
        provenance=Provenance(detector="mshnet"),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gain": PercentileGain(low=1, high=99.9), "bit_depth": 14},
        {"gain": ClaheGain(clip_limit=2.0, tiles=8), "bit_depth": 16},
        {"door": "float32", "bit_depth": 14, "gain": MinMaxGain()},
        {
            "height": Range(min=128, opt=512, max=1024, multiple=16),
            "width": Range(min=128, opt=640, max=1280, multiple=16),
            "fit": PadToMultiple(multiple=16),
        },
    ],
)
def test_json_round_trip_loses_nothing(changes: dict[str, object]) -> None:
    written = contract(**changes)
    assert Contract.from_json(written.to_json(), "memory") == written


def test_unknown_fields_of_a_later_minor_version_survive() -> None:
    raw = json.loads(contract().to_json())
    raw["schema_version"] = "1.9"
    raw["output"]["later"] = {"a": 1}
    read = Contract.from_json(json.dumps(raw), "memory")
    assert json.loads(read.to_json())["output"]["later"] == {"a": 1}


def test_unknown_major_version_is_one_clear_line() -> None:
    raw = json.loads(contract().to_json()) | {"schema_version": "2.0"}
    with pytest.raises(ArtifactError, match=r"model\.onnx.*schema 2\.0.*reads 1\.0"):
        Contract.from_json(json.dumps(raw), "model.onnx")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema_version": NaN}', "\x00"])
def test_garbage_is_one_clear_line(text: str) -> None:
    with pytest.raises(ArtifactError, match=r"^'model\.onnx' holds no readable contract"):
        Contract.from_json(text, "model.onnx")


def test_an_invalid_field_is_named() -> None:
    raw = json.loads(contract().to_json())
    raw["output"]["score_threshold"] = 7
    with pytest.raises(ArtifactError, match=r"output\.score_threshold"):
        Contract.from_json(json.dumps(raw), "model.onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"bit_depth": 14},
        {"door": "float32", "gain": ClaheGain(clip_limit=2.0, tiles=8)},
        {"height": Range(min=128, opt=256, max=512, multiple=16)},
        {"channels": 2},
    ],
    ids=["deep frame through a uint8 door without gain", "CLAHE in the graph", "dynamic squash", "two channels"],
)
def test_a_contradiction_cannot_be_expressed(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        contract(**changes)


def test_another_input_is_validated_and_everything_else_kept() -> None:
    changed = contract().with_input(height=512, width=640, fit=PadToMultiple(multiple=16))
    assert changed.input.size == (512, 640)
    assert changed.output == contract().output
    with pytest.raises(ValueError):
        contract().with_input(height=Range(min=16, opt=16, max=32, multiple=16))


def test_history_grows_and_the_original_stays() -> None:
    first = contract()
    second = first.with_step("export", opset=20, skipped=None)
    assert first.provenance.history == []
    assert second.provenance.history == [{"tool": "export", "opset": 20}]
