"""Loading and saving ONNX files safely, and the contract inside them.

A file from a stranger is data until it is proven harmless: it is measured before it is parsed, its external weights may
only be plain files in its own folder, and graphs that crash a parser further down are refused here.
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from irforge.contract import METADATA_KEY, Contract
from irforge.errors import ArtifactError
from irforge.files import write_bytes

if TYPE_CHECKING:
    import onnx

PathLike = str | os.PathLike[str]

# A protobuf message cannot be longer; weights beyond it live in external files.
MAX_FILE_BYTES = 2**31 - 1
MAX_EXTERNAL_BYTES = 16 * 2**30

# Field numbers of ModelProto in onnx.proto.
_IR_VERSION, _GRAPH, _METADATA = 1, 7, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Types of which several share a byte.
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def load_model(path: PathLike, *, check: bool = True) -> onnx.ModelProto:
    """Load an ONNX file with all weights in memory.

    External weights must be plain files in the model's folder or below it: no absolute path, no `..`, no symbolic or
    hard link. The result holds no reference to them.

    Args:
        path: the `.onnx` file.
        check: also run onnx.checker (structure, not shapes).

    Raises:
        ArtifactError: missing, empty, truncated, not ONNX, too large, unsafe or incomplete external data, a function
            that calls itself, or refused by onnx.checker.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    file = Path(path)
    for _ in _top_level(file):
        pass
    model = ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError:
        raise _damaged(file) from None
    _read_external_data(model, file)
    refuse_recursive_functions(model, str(file))
    if check:
        check_model(model, str(file), shapes=False)
    return model


def save_model(path: PathLike, model: onnx.ModelProto) -> None:
    """Write an ONNX file atomically, after onnx.checker's full check with shape inference.

    Raises:
        ArtifactError: the graph is invalid or larger than one protobuf message can be.
    """
    if model.ByteSize() > MAX_FILE_BYTES:
        raise ArtifactError(f"'{path}' would be {model.ByteSize() / 2**30:.1f} GiB, one ONNX file holds at most 2 GiB")
    refuse_recursive_functions(model, str(path))
    check_model(model, str(path), shapes=True)
    write_bytes(path, model.SerializeToString())


def read_contract(source: PathLike | onnx.ModelProto, where: PathLike = "") -> Contract:
    """The contract of an ONNX file or loaded model. A file's weights are skipped over, not read.

    Args:
        source: the file, or the model.
        where: the file of a loaded model, for messages.

    Raises:
        ArtifactError: not an ONNX file, no contract inside, or an unreadable one.
    """
    if isinstance(source, str | os.PathLike):
        where = source
        file = Path(source)
        entries = [_entry(content, file) for number, content in _top_level(file) if number == _METADATA]
    else:
        entries = [(entry.key, entry.value.encode()) for entry in source.metadata_props]
    for key, text in entries:
        if key == METADATA_KEY:
            return Contract.from_json(text, str(where or "the model"))
    named = f"'{where}'" if where else "this"
    raise ArtifactError(
        f"{named} is an ONNX model without a contract: nobody knows how its frames must look",
        "Write one with 'irforge adopt', or export it with 'irforge export'",
    )


def embed_contract(model: onnx.ModelProto, contract: Contract) -> None:
    """Put the contract into the model's metadata, in place of the one it may have."""
    others = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    for key, value in [*others, (METADATA_KEY, contract.to_json())]:
        model.metadata_props.add(key=key, value=value)


def model_fingerprint(model: onnx.ModelProto) -> str:
    """Hex SHA-256 of what a model computes: graph, functions and opsets, without metadata, names of tools and comments.

    Equal for a model before and after a contract is embedded, and before and after it is saved and loaded.
    """
    from onnx import ModelProto

    bare = ModelProto()
    bare.CopyFrom(model)
    for field in ("metadata_props", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        bare.ClearField(field)
    strip_annotations(bare)
    bare.graph.ClearField("name")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def strip_annotations(model: onnx.ModelProto) -> None:
    """Remove comments and tool metadata everywhere; exporters leave stack traces and paths there."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    graphs = [model.graph, *(graph for nodes in bodies for graph in subgraphs(nodes))]
    lists = [*bodies, *(graph.node for graph in graphs[1:])]
    lists += [part for graph in graphs for part in (graph.initializer, graph.input, graph.output, graph.value_info)]
    for part in (*graphs, *model.functions, *(element for parts in lists for element in parts)):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """All graphs in the attributes of nodes, at any depth."""
    for node in nodes:
        for attribute in node.attribute:
            held = [attribute.g] if attribute.HasField("g") else []
            for graph in (*held, *attribute.graphs):
                yield graph
                yield from subgraphs(graph.node)


def check_model(model: onnx.ModelProto, where: str, *, shapes: bool) -> None:
    """onnx.checker, with its complaint as one line.

    Raises:
        ArtifactError: the checker, or with `shapes` its shape inference, refuses the model.
    """
    from onnx import checker, shape_inference

    try:
        checker.check_model(model, full_check=shapes)
    except (checker.ValidationError, shape_inference.InferenceError, UnicodeDecodeError) as error:
        complaint = str(error).strip().split("\n")[0]
        raise ArtifactError(f"'{where}' is not a valid ONNX model: {complaint}") from None


def refuse_recursive_functions(model: onnx.ModelProto, where: str) -> None:
    """A function that calls itself, directly or through others, crashes NVIDIA's parser.

    Functions are compared by name without domain, as that parser looks them up.

    Raises:
        ArtifactError: names the function.
    """
    names = {function.name for function in model.functions}
    calls = {
        function.name: {
            node.op_type
            for nodes in [function.node, *(graph.node for graph in subgraphs(function.node))]
            for node in nodes
            if node.domain not in ("", "ai.onnx") and node.op_type in names
        }
        for function in model.functions
    }
    # Peeling off functions whose callees are all known leaves exactly those on or behind a cycle.
    resolved: set[str] = set()
    while ready := {name for name, callees in calls.items() if name not in resolved and callees <= resolved}:
        resolved |= ready
    if left := sorted(names - resolved):
        raise ArtifactError(
            f"'{where}' holds the recursive function '{left[0]}', which no runtime can run",
            "Remove the call from its body, or inline the function in the program that made the file",
        )


def checkpoint_remedy(path: PathLike) -> str:
    """What to do with a checkpoint given for a deployable; empty for any other file, by its name."""
    file = Path(path)
    if file.suffix.lower() != ".safetensors":
        return ""
    return f"It is a checkpoint: irforge export {shlex.join([str(file), '-o', str(file.with_suffix('.onnx'))])}"


def _damaged(file: Path) -> ArtifactError:
    return ArtifactError(
        f"'{file}' is not an ONNX model, or a damaged one ({file.stat().st_size} bytes)",
        "Copy or download it again, and check that it is the .onnx file itself",
    )


def _top_level(file: Path) -> Iterator[tuple[int, bytes]]:
    """(field number, content) of a ModelProto's top-level fields; the graph's content is skipped and given as b"".

    Walks the protobuf wire format, so that neither onnx nor the weights are loaded, and a file that is cut short or
    something else is found out before a parser sees it.
    """
    if not file.is_file():
        if file.is_dir():
            raise ArtifactError(f"the ONNX file '{file}' is a folder", "Name the .onnx file in it")
        raise ArtifactError(
            f"the ONNX file '{file}' does not exist", "Check the path; 'irforge export' makes one of trained weights"
        )
    if remedy := checkpoint_remedy(file):
        raise ArtifactError(f"'{file}' is no ONNX model", remedy)
    size = file.stat().st_size
    if size == 0:
        raise ArtifactError(f"'{file}' is empty", "Copy or export it again")
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"'{file}' has {size / 2**30:.1f} GiB, an ONNX file has at most 2 GiB")
    seen = set()
    try:
        with file.open("rb") as handle:
            for number, content in _fields(handle, size, skipped=_GRAPH):
                seen.add(number)
                yield number, content
    except _BrokenWireFormatError:
        raise _damaged(file) from None
    if not {_IR_VERSION, _GRAPH} <= seen:
        raise _damaged(file)


class _BrokenWireFormatError(Exception):
    pass


def _fields(handle: BinaryIO, size: int, skipped: int = 0) -> Iterator[tuple[int, bytes]]:
    while handle.tell() < size:
        tag = _varint(handle)
        number, wire = tag >> 3, tag & 7
        if wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32) or number == 0:
            raise _BrokenWireFormatError
        if wire == _VARINT:
            _varint(handle)
        length = _varint(handle) if wire == _BYTES else {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
        if handle.tell() + length > size:
            raise _BrokenWireFormatError
        if number == skipped:
            handle.seek(length, os.SEEK_CUR)
            yield number, b""
        else:
            yield number, handle.read(length)


def _varint(handle: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = handle.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _BrokenWireFormatError


def _entry(content: bytes, file: Path) -> tuple[str, bytes]:
    """Key and value of a serialised StringStringEntryProto."""
    try:
        fields = dict(_fields(BytesIO(content), len(content)))
    except _BrokenWireFormatError:
        raise _damaged(file) from None
    return fields.get(1, b"").decode(errors="replace"), fields.get(2, b"")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor a model stores: initializers, dense and sparse, and attributes, in graphs and functions alike."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    graphs = [model.graph, *(graph for nodes in bodies for graph in subgraphs(nodes))]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for nodes in (*bodies, *(graph.node for graph in graphs[1:])):
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def _read_external_data(model: onnx.ModelProto, file: Path) -> None:
    from onnx import TensorProto

    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        needed = _byte_count(tensor, file)
        total += needed
        if total > MAX_EXTERNAL_BYTES:
            raise ArtifactError(f"the external data of '{file}' exceeds {MAX_EXTERNAL_BYTES / 2**30:.0f} GiB")
        tensor.raw_data = _external_bytes(tensor, needed, file)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _byte_count(tensor: onnx.TensorProto, file: Path) -> int:
    from onnx import TensorProto, helper

    where = f"weight '{tensor.name}' in '{file}'"
    if any(side < 0 for side in tensor.dims):
        raise ArtifactError(f"{where} has a negative size {list(tensor.dims)}")
    if tensor.data_type not in helper.get_all_tensor_dtypes() or tensor.data_type == TensorProto.STRING:
        raise ArtifactError(f"{where} has type {tensor.data_type}, which cannot be stored outside the model")
    name = TensorProto.DataType.Name(tensor.data_type)
    bits = _PACKED_BITS.get(name) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return (int(math.prod(tensor.dims)) * bits + 7) // 8


def _external_bytes(tensor: onnx.TensorProto, needed: int, file: Path) -> bytes:
    """The bytes of one external weight. The opened file is what is checked, so that it cannot be swapped in between."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"weight '{tensor.name}' of '{file}' lies in '{location}'"
    remedy = "Put the data file itself beside the model, or save the model as one file"
    if not location or Path(location).is_absolute() or "\\" in location or ".." in Path(location).parts:
        raise ArtifactError(f"{where}, outside the model's folder", remedy)
    folder = file.parent.resolve()
    data = folder / location
    if data.resolve() != data:
        raise ArtifactError(f"{where}, a symbolic link", remedy)
    if not data.is_file():
        raise ArtifactError(f"{where}, which does not exist", "Copy the data file along with the model")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(needed)))
    except ValueError:
        raise ArtifactError(f"{where} at an offset or length that is no number") from None
    descriptor = os.open(data, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as handle:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ArtifactError(f"{where}, a hard link or no plain file", remedy)
        if offset < 0 or length != needed or offset + length > status.st_size:
            raise ArtifactError(
                f"{where} at bytes {offset} to {offset + length} of {status.st_size}, but needs {needed} bytes",
                "Copy the data file again; it is cut short or belongs to another model",
            )
        handle.seek(offset)
        return handle.read(length)
