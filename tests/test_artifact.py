"""Files from strangers: what is not a whole, harmless ONNX model is refused in one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.artifact import (
    embed_contract,
    load_model,
    model_fingerprint,
    read_contract,
    save_model,
    strip_annotations,
)
from irforge.contract import (
    Contract,
    InputSpec,
    Normalization,
    OutputSpec,
    Provenance,
    Squash,
    TensorSpec,
)
from irforge.errors import ArtifactError


def _contract() -> Contract:
    return Contract(
        input=InputSpec(height=32, width=32, fit=Squash(), normalization=Normalization(mean=100, std=50)),
        output=OutputSpec(
            kind="mask",
            classes=["target"],
            score_threshold=0.5,
            tensors=[TensorSpec(name="mask", dtype="float32", shape=["N", 1, 32, 32], meaning="probability")],
        ),
        provenance=Provenance(detector="toy"),
    )


def _model(weight: np.ndarray | None = None) -> onnx.ModelProto:
    weight = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3) if weight is None else weight
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 32, 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _external(folder: Path, **entries: str) -> Path:
    """A model whose weight lies in `weights.bin` unless `entries` say otherwise."""
    model = _model()
    weight = model.graph.initializer[0]
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "weights.bin", "offset": "4", "length": "36"} | entries).items():
        weight.external_data.add(key=key, value=value)
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(b"1234" + data)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_contract_survives_saving_and_loading(tmp_path: Path) -> None:
    model = _model()
    embed_contract(model, _contract())
    embed_contract(model, _contract().with_step("export", opset=20))
    save_model(tmp_path / "a.onnx", model)
    for source in (tmp_path / "a.onnx", load_model(tmp_path / "a.onnx")):
        contract = read_contract(source)
        assert contract.provenance.history == [{"tool": "export", "opset": 20}]
        assert contract.input == _contract().input
    assert len(load_model(tmp_path / "a.onnx").metadata_props) == 1


def test_reading_a_contract_loads_neither_onnx_nor_weights(tmp_path: Path) -> None:
    model = _model()
    embed_contract(model, _contract())
    save_model(tmp_path / "a.onnx", model)
    code = (
        "import sys; from irforge.artifact import read_contract; "
        f"print(read_contract({str(tmp_path / 'a.onnx')!r}).provenance.detector, 'onnx' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["toy", "False"]


def test_a_model_without_contract_names_irforge_adopt(tmp_path: Path) -> None:
    save_model(tmp_path / "a.onnx", _model())
    with pytest.raises(ArtifactError, match=r"without a contract.*irforge adopt"):
        read_contract(tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match="irforge adopt"):
        read_contract(_model())
    with pytest.raises(ArtifactError, match=r"^'b\.onnx' is an ONNX model without a contract"):
        read_contract(_model(), "b.onnx")


@pytest.mark.parametrize("reader", [load_model, read_contract])
def test_a_checkpoint_in_place_of_a_model_is_told_how_to_export_it(tmp_path: Path, reader: object) -> None:
    path = tmp_path / "acm.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(ArtifactError, match=r"It is a checkpoint: irforge export \S+acm\.safetensors -o \S+acm\.onnx$"):
        reader(path)  # type: ignore[operator]


@pytest.mark.parametrize("reader", [load_model, read_contract])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>\n" * 30, "not an ONNX model"),
        (b"\x80\x02}q\x00(X\x05\x00\x00\x00modelq\x01cos\nsystem\n", "not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64), "not an ONNX model"),
        (b"\x08\x0a", "not an ONNX model"),
    ],
)
def test_what_is_not_onnx_is_refused(tmp_path: Path, reader: object, content: bytes, message: str) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        reader(tmp_path / "a.onnx")  # type: ignore[operator]
    assert "\n" not in caught.value.line


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone\.onnx' does not exist\. Check the path"):
        load_model(tmp_path / "gone.onnx")
    with pytest.raises(ArtifactError, match="is a folder"):
        load_model(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = _model().SerializeToString()
    for length in range(1, len(whole) - 1, 7):
        (tmp_path / "a.onnx").write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            load_model(tmp_path / "a.onnx")


def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(_model().SerializeToString(), dtype=np.uint8)
    refused = 0
    for _ in range(200):
        damaged = whole.copy()
        damaged[rng.integers(len(whole), size=3)] = rng.integers(256, size=3)
        (tmp_path / "a.onnx").write_bytes(damaged.tobytes())
        try:
            load_model(tmp_path / "a.onnx")
        except ArtifactError:
            refused += 1
    assert refused > 50


def test_external_weights_in_the_folder_are_taken_in(tmp_path: Path) -> None:
    model = load_model(_external(tmp_path))
    assert numpy_helper.to_array(model.graph.initializer[0]).ravel().tolist() == list(range(9))
    assert model_fingerprint(model) == model_fingerprint(_model())
    (tmp_path / "weights.bin").unlink()
    save_model(tmp_path / "whole.onnx", model)


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "..\\weights.bin", ""])
def test_external_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    path = _external(tmp_path / "model", location=location)
    with pytest.raises(ArtifactError, match="outside the model's folder"):
        load_model(path)


def test_external_weights_through_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    path = _external(tmp_path / "model", location="link.bin")
    (path.parent / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_model(path)
    (path.parent / "link.bin").unlink()
    os.link(tmp_path / "secret", path.parent / "link.bin")
    with pytest.raises(ArtifactError, match="hard link"):
        load_model(path)
    path = _external(tmp_path / "model", location="sub/secret")
    (path.parent / "sub").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_model(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "gone.bin"}, "does not exist"),
        ({"offset": "8"}, "needs 36 bytes"),
        ({"offset": "-4"}, "needs 36 bytes"),
        ({"offset": str(2**62)}, "needs 36 bytes"),
        ({"length": "12"}, "needs 36 bytes"),
        ({"offset": "four"}, "no number"),
    ],
)
def test_missing_or_short_external_weights_are_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        load_model(_external(tmp_path, **entries))


def test_huge_claims_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = _external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[:] = [2**40, 1, 3, 3]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="exceeds 16 GiB"):
        load_model(path)


def _function(name: str, calls: str, domain: str = "irforge") -> onnx.FunctionProto:
    return helper.make_function(
        domain, name, ["x"], ["y"], [helper.make_node(calls, ["x"], ["y"], domain=domain)],
        [helper.make_opsetid("irforge", 1), helper.make_opsetid("", 20)],
    )  # fmt: skip


def test_recursive_functions_are_refused_before_a_parser_crashes(tmp_path: Path) -> None:
    for functions in ([_function("Gate", "Gate")], [_function("Gate", "Other"), _function("Other", "Gate")]):
        model = _model()
        model.functions.extend(functions)
        (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ArtifactError, match="recursive function 'Gate'"):
            load_model(tmp_path / "a.onnx")
        with pytest.raises(ArtifactError, match="recursive function 'Gate'"):
            save_model(tmp_path / "b.onnx", model)
    assert not (tmp_path / "b.onnx").exists()


def test_functions_that_call_each_other_in_order_pass(tmp_path: Path) -> None:
    model = _model()
    model.opset_import.append(helper.make_opsetid("irforge", 1))
    model.functions.extend([_function("Gate", "Inner"), _function("Inner", "Relu", domain="")])
    model.functions[1].domain = "irforge"
    save_model(tmp_path / "a.onnx", model)
    assert [function.name for function in load_model(tmp_path / "a.onnx").functions] == ["Gate", "Inner"]


def test_an_invalid_graph_is_neither_loaded_nor_saved(tmp_path: Path) -> None:
    model = _model()
    model.graph.node[0].input[1] = "absent"
    with pytest.raises(ArtifactError, match="not a valid ONNX model"):
        save_model(tmp_path / "a.onnx", model)
    assert not any(tmp_path.iterdir())
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="not a valid ONNX model"):
        load_model(tmp_path / "a.onnx")
    mismatch = _model()
    mismatch.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 31
    with pytest.raises(ArtifactError, match="not a valid ONNX model"):
        save_model(tmp_path / "b.onnx", mismatch)


def test_fingerprint_follows_the_computation_only(tmp_path: Path) -> None:
    model = _model()
    before = model_fingerprint(model)
    embed_contract(model, _contract())
    model.producer_name = "somebody"
    model.graph.node[0].doc_string = "File /home/somebody/net.py, line 3"
    save_model(tmp_path / "a.onnx", model)
    assert model_fingerprint(load_model(tmp_path / "a.onnx")) == before
    assert model_fingerprint(_model(np.ones((1, 1, 3, 3), np.float32))) != before


def test_stack_traces_are_stripped() -> None:
    model = _model()
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody")
    strip_annotations(model)
    assert b"somebody" not in model.SerializeToString()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("irforge.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path / "a.onnx", _model())
    assert not any(tmp_path.iterdir())
