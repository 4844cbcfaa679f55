from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from irforge.artifact import embed_contract, load_model, read_contract
from irforge.calib.ranges import check_fresh, load_ranges, save_ranges
from irforge.errors import CalibrationError


def test_ranges_survive_being_saved_and_loaded(attentive_ranges: Path, tmp_path: Path) -> None:
    ranges = load_ranges(attentive_ranges)
    save_ranges(tmp_path / "again.json", ranges)
    assert load_ranges(tmp_path / "again.json") == ranges


def test_ranges_of_the_same_model_are_fresh(attentive: Path, attentive_ranges: Path) -> None:
    model = load_model(attentive)
    check_fresh(load_ranges(attentive_ranges), attentive_ranges, model, read_contract(model))


def test_one_changed_weight_makes_ranges_stale(attentive: Path, attentive_ranges: Path) -> None:
    model = load_model(attentive)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(9))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    ranges = load_ranges(attentive_ranges)
    with pytest.raises(
        CalibrationError, match=r"stale calibration.*graph or weights.*irforge calibrate attentive.onnx"
    ):
        check_fresh(ranges, attentive_ranges, model, read_contract(model))


def test_ranges_of_another_model_are_told_whose_they_are(attentive: Path, attentive_ranges: Path) -> None:
    model = load_model(attentive)
    model.graph.initializer[0].name = "other"
    ranges = load_ranges(attentive_ranges)
    with pytest.raises(
        CalibrationError, match=r"' is of attentive\.onnx, not acm128\.onnx\. .*: irforge calibrate in/acm128\.onnx "
    ):
        check_fresh(ranges, attentive_ranges, model, read_contract(model), "in/acm128.onnx")


def test_another_gain_control_makes_ranges_stale(attentive: Path, attentive_ranges: Path) -> None:
    model = load_model(attentive)
    contract = read_contract(model).with_input(pad_level=3.0)
    embed_contract(model, contract)
    with pytest.raises(CalibrationError, match=r"stale calibration.*contract's input"):
        check_fresh(load_ranges(attentive_ranges), attentive_ranges, model, contract)


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        raw = json.loads(text)
        change(raw)
        return json.dumps(raw)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit(lambda raw: raw["frames"]["sha256"].pop()), "changed after it was written"),
        (_edit(lambda raw: raw["contract_input"].update(height=64)), "changed after it was written"),
        (_edit(lambda raw: raw.update(schema_version="2.0")), "schema 2.0"),
        (_edit(lambda raw: raw.pop("tensors")), "no readable ranges"),
        (_edit(lambda raw: next(iter(raw["tensors"].values())).update(absmax=-1)), "no readable ranges"),
        (lambda text: text[: len(text) // 2], "no readable ranges"),
        (lambda text: text.replace('"min":', '"min": NaN, "was":', 1), "no readable ranges"),
        (lambda text: "[]", "no readable ranges"),
    ],
)
def test_a_range_file_that_cannot_be_trusted_is_refused(
    attentive_ranges: Path, tmp_path: Path, edit: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(edit(attentive_ranges.read_text()))
    with pytest.raises(CalibrationError, match=message):
        load_ranges(path)


def test_a_missing_range_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.json' does not exist"):
        load_ranges(tmp_path / "none.json")
