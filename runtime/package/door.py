"""A copy of a graph whose door takes floating-point levels, for programs that hand over no others."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto

from irforge.artifact import embed_contract
from irforge.contract import Contract
from irforge.errors import ArtifactError, CheckFailed
from irforge.graph import Graph, is_op

_LEVELS = 255.0


def with_float_door(model: ModelProto, contract: Contract, where: str) -> tuple[ModelProto, Contract]:
    """The same graph behind a float32 door: levels are rounded, clipped to 0..255 and then what uint8 ones were.

    Whole levels give the same outputs to the last bit. Class numbers leave as int32, because readers of TensorRT's
    outputs that know no int64 are about. A graph with a float32 door keeps it.

    Args:
        model: not changed.
        contract: the model's.
        where: what to call the model in errors.

    Returns:
        The copy with its contract inside, and that contract.

    Raises:
        ArtifactError: the graph works on the uint8 levels themselves, which TensorRT can do at a door only.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph, name = Graph(copy), contract.input.name
    if contract.input.door == "uint8":
        readers = graph.consumers(name)
        if not readers or any(not is_op(reader, "Cast") for reader in readers):
            raise ArtifactError(
                f"'{where}' works on the uint8 levels of '{name}' before they are cast, so that its door cannot change",
                "Export it again with 'irforge export'",
            )
        for value in copy.graph.input:
            if value.name == name:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        rounded = graph.add("Round", [name], "levels_rounded")
        bounds = [graph.add_array(np.array(level, np.float32), f"level_{level:.0f}") for level in (0.0, _LEVELS)]
        levels = graph.add("Clip", [rounded, *bounds], "levels")
        for reader in readers:
            reader.input[0] = levels
        graph.touch()
    for value in copy.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            _narrow(graph, value.name)
            value.type.tensor_type.elem_type = TensorProto.INT32
    graph.tidy()
    tensors = [
        tensor.model_copy(update={"dtype": "int32"}) if tensor.dtype == "int64" else tensor
        for tensor in contract.output.tensors
    ]
    output = contract.output.model_copy(update={"tensors": tensors})
    changed = (
        contract.with_input(door="float32").model_copy(update={"output": output}).with_step("package", door="float32")
    )
    embed_contract(copy, changed)
    return copy, changed


def _narrow(graph: Graph, name: str) -> None:
    """Let an int64 output leave as int32, under its name."""
    maker, readers = graph.producer(name), graph.consumers(name)
    if maker is None:
        raise ArtifactError(f"output '{name}' is computed by no node")
    wide = graph.fresh(f"{name}_int64")
    maker.output[list(maker.output).index(name)] = wide
    for reader in readers:
        for place, source in enumerate(reader.input):
            if source == name:
                reader.input[place] = wide
    graph.touch()
    narrow = graph.add("Cast", [wide], f"{name}_int32", to=TensorProto.INT32)
    cast = graph.producer(narrow)
    assert cast is not None
    cast.output[0] = name
    graph.touch()


def prove_equal(before: ModelProto, after: ModelProto, contract: Contract) -> None:
    """Run both graphs on whole levels: whatever they return has to be the same to the last bit.

    Args:
        before: the graph with a uint8 door.
        after: its copy.
        contract: of `before`.

    Raises:
        CheckFailed: an output differs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # The two graphs are to be told apart, not two fusions of them.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    height, width = contract.input.size
    shape = Graph(before).shape(contract.input.name) or (1,)
    batch = shape[0] if isinstance(shape[0], int) else 1
    levels = np.random.default_rng(0).integers(0, 256, (batch, contract.input.channels, height, width), np.uint8)
    results = []
    for model in (before, after):
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        door = np.float32 if "float" in session.get_inputs()[0].type else np.uint8
        results.append(session.run(None, {contract.input.name: levels.astype(door)}))
    for one, other in zip(*results, strict=True):
        if not np.array_equal(one, other):
            raise CheckFailed("the copy with a float door does not return what the original returns", "Report this")
