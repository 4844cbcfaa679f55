"""A Triton repository: its configurations by Triton's own schema, its Python models run as Triton would run them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.contract import Contract
from irforge.errors import ArtifactError, UsageError
from irforge.files import sha256_of_file
from irforge.frames import prepare
from irforge.runtime.detector import load
from irforge.runtime.package.pack import package
from irforge.runtime.sidecar import LOADERS, Plugin, Sidecar, Source, sidecar_path
from tests.box_model import box_frame, write_box_model
from tests.runtime.test_rescoring import name_companion, write_companion

Model = Callable[..., Path]


@pytest.fixture(scope="session")
def schema() -> Any:
    """Triton's model_config.proto, as tritonclient carries it; by path, because its package imports grpc."""
    found = importlib.util.find_spec("tritonclient")
    if found is None:
        pytest.skip("tritonclient is not installed: pip install --no-deps tritonclient")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs(repository: Path, schema: Any) -> dict[str, Any]:
    from google.protobuf import text_format

    parsed = {}
    for path in repository.glob("*/config.pbtxt"):
        parsed[path.parent.name] = config = text_format.Parse(path.read_text(), schema.ModelConfig())
        assert config.name == path.parent.name
        assert (path.parent / "1").is_dir()
    return parsed


def described(tensors: Any, schema: Any) -> dict[str, tuple[str, list[int]]]:
    return {t.name: (schema.DataType.Name(t.data_type).removeprefix("TYPE_"), list(t.dims)) for t in tensors}


def test_boxes_are_one_model_with_its_contract(tmp_path: Path, schema: Any) -> None:
    model = write_box_model(tmp_path / "peaks.int8.onnx")
    package(model, "triton", tmp_path / "repository", batch=4)
    found = configs(tmp_path / "repository", schema)
    assert set(found) == {"peaks_int8"}
    config = found["peaks_int8"]
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 4)
    assert described(config.input, schema) == {"frames": ("UINT8", [1, 64, 64])}
    outputs = {"boxes": ("FP32", [6, 4]), "scores": ("FP32", [6]), "classes": ("INT64", [6])}
    assert described(config.output, schema) == outputs
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_AUTO
    assert config.version_policy.latest.num_versions == 1
    held = config.parameters["irforge.contract"].string_value
    assert Contract.from_json(held, "config") == read_contract(model)
    assert float(config.parameters["score_threshold"].string_value) == 0.5
    served = tmp_path / "repository" / "peaks_int8" / "1" / "model.onnx"
    assert onnxruntime.InferenceSession(served).get_inputs()[0].name == "frames"


def test_a_mask_becomes_targets_in_an_ensemble(tmp_path: Path, schema: Any, spot_model: Model) -> None:
    package(spot_model(), "triton", tmp_path / "repository")
    found = configs(tmp_path / "repository", schema)
    assert set(found) == {"spot", "spot_graph", "spot_targets"}
    assert found["spot"].platform == "ensemble"
    steps = found["spot"].ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["spot_graph", "spot_targets"]
    # What a step takes is what the one before gives, or the request; what it gives, the model declares.
    known = {tensor.name for tensor in found["spot"].input}
    for step in steps:
        config = found[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in config.input}
        assert set(step.output_map) == {tensor.name for tensor in config.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in found["spot"].output} <= known
    assert described(found["spot_targets"].output, schema) == described(found["spot"].output, schema)
    assert found["spot_targets"].backend == "python"


def test_a_fixed_batch_and_a_free_size_are_said_as_they_are(tmp_path: Path, schema: Any, conv_model: Model) -> None:
    fixed = conv_model(batch=1, channels=4)
    package(fixed, "triton", tmp_path / "fixed")
    found = configs(tmp_path / "fixed", schema)
    graph = found["chain_fp32_graph"]
    assert graph.max_batch_size == 0 and described(graph.input, schema) == {"frames": ("UINT8", [1, 1, 32, 48])}
    assert described(graph.output, schema) == {"mask": ("FP32", [1, 1, 32, 48])}
    assert described(found["chain_fp32"].output, schema)["boxes"] == ("FP32", [1, -1, 4])
    with pytest.raises(UsageError, match="fixed"):
        package(fixed, "triton", tmp_path / "other", batch=2)
    # Not the contract's letters, but the graph's sizes: Triton refuses a configuration that leaves open what is not.
    lettered = load_model(fixed)
    contract = read_contract(lettered)
    mask = contract.output.tensors[0].model_copy(update={"shape": ["N", 1, "H", "W"]})
    output = contract.output.model_copy(update={"tensors": [mask]})
    embed_contract(lettered, contract.model_copy(update={"output": output}))
    save_model(tmp_path / "lettered.onnx", lettered)
    package(tmp_path / "lettered.onnx", "triton", tmp_path / "lettered")
    graph = configs(tmp_path / "lettered", schema)["lettered_graph"]
    assert described(graph.output, schema) == {"mask": ("FP32", [1, 1, 32, 48])}
    package(conv_model(batch="N", height="H", width="W", channels=4), "triton", tmp_path / "free")
    graph = configs(tmp_path / "free", schema)["chain_fp32_graph"]
    assert graph.max_batch_size == 8 and described(graph.input, schema) == {"frames": ("UINT8", [1, -1, -1])}


# --- the Python models, with a stand-in for the module that Triton gives them


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.named, self.array = name, array

    def name(self) -> str:
        return self.named

    def as_numpy(self) -> np.ndarray:
        return self.array


class Response:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: Any = None) -> None:
        self.tensors, self.failure = output_tensors or [], error

    def has_error(self) -> bool:
        return self.failure is not None

    def error(self) -> Any:
        return self.failure


class Refused(Exception):
    pass


class Error(str):
    def message(self) -> str:
        return str(self)


def triton_utils(repository: Path) -> ModuleType:
    """`triton_python_backend_utils`, whose requests run the repository's ONNX models."""

    class Request:
        def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Tensor]) -> None:
            self.model, self.outputs, self.inputs = model_name, requested_output_names, inputs

        def exec(self) -> Response:
            session = onnxruntime.InferenceSession(repository / self.model / "1" / "model.onnx")
            feeds = {tensor.named: tensor.array for tensor in self.inputs}
            results = session.run(self.outputs, feeds)
            return Response([Tensor(name, array) for name, array in zip(self.outputs, results, strict=True)])

    def tensor_of(holder: Any, name: str) -> Tensor:
        return next(tensor for tensor in holder.tensors if tensor.named == name)

    module = ModuleType("triton_python_backend_utils")
    given: dict[str, Any] = {
        "Tensor": Tensor,
        "InferenceResponse": Response,
        "InferenceRequest": Request,
        "TritonError": Error,
    }
    for name, value in (given | {"TritonModelException": Refused}).items():
        setattr(module, name, value)
    module.get_input_tensor_by_name = module.get_output_tensor_by_name = tensor_of  # type: ignore[attr-defined]
    return module


def python_model(repository: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A repository's model.py, loaded as Triton's stub loads it: with its folder on the path, and no irforge."""
    folder = repository / name / "1"
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton_utils(repository))
    monkeypatch.syspath_prepend(str(folder))
    for file in folder.glob("*.py"):
        assert "irforge." not in "".join(line for line in file.open() if "import " in line and "`" not in line)
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for file in folder.glob("*.py"):
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    return module.TritonPythonModel()


def model_config(repository: Path, name: str, schema: Any) -> dict[str, Any]:
    """What Triton hands to `initialize`."""
    from google.protobuf import json_format

    config = configs(repository, schema)[name]
    return {"model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True))}


def test_the_decoder_gives_what_irforge_gives(
    tmp_path: Path, schema: Any, spot_model: Model, spot_frame: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spot_model()
    package(path, "triton", tmp_path / "repository")
    frames = [spot_frame(x=5), spot_frame(x=30), np.full((64, 64), 90, np.uint8)]
    frames[1][5:8, 50:53] = 180
    session = onnxruntime.InferenceSession(tmp_path / "repository" / "spot_graph" / "1" / "model.onnx")
    masks = session.run(None, {"frames": np.stack(frames)[:, None]})[0]
    decoder = python_model(tmp_path / "repository", "spot_targets", monkeypatch)
    decoder.initialize(model_config(tmp_path / "repository", "spot_targets", schema))
    (answer,) = decoder.execute([SimpleNamespace(tensors=[Tensor("mask", masks)])])
    given = {tensor.named: tensor.array for tensor in answer.tensors}
    assert given["boxes"].shape == (3, 2, 4)
    with load(path, threads=1) as detector:
        for row, frame in enumerate(frames):
            found, real = detector(frame), given["scores"][row] > 0.5
            assert real.sum() == len(found) == (1, 2, 0)[row]
            for name in ("boxes", "scores", "classes", "centres", "areas"):
                np.testing.assert_array_equal(given[name][row][real], getattr(found, name))
    masks[0, 0, 3, 3] = np.nan
    (answer,) = decoder.execute([SimpleNamespace(tensors=[Tensor("mask", masks)])])
    assert "NaN" in answer.error()


def test_an_image_encoder_judges_again_in_triton(tmp_path: Path, schema: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_companion(tmp_path / "judge.onnx")
    path = write_box_model(tmp_path / "peaks.onnx")
    name_companion(path)
    package(path, "triton", tmp_path / "repository")
    found = configs(tmp_path / "repository", schema)
    assert set(found) == {"peaks", "peaks_graph", "peaks_encoder"}
    served = onnxruntime.InferenceSession(tmp_path / "repository" / "peaks_encoder" / "1" / "model.onnx")
    inputs = {t.name: [side if isinstance(side, int) else -1 for side in t.shape] for t in served.get_inputs()}
    assert {name: dims for name, (_, dims) in described(found["peaks_encoder"].input, schema).items()} == inputs
    model = python_model(tmp_path / "repository", "peaks", monkeypatch)
    model.initialize(model_config(tmp_path / "repository", "peaks", schema))
    frames = [box_frame((10, 12), (40, 30)), box_frame((60, 61)), box_frame()]
    spec = read_contract(path).input
    tensor = np.concatenate([prepare(frame, spec)[0] for frame in frames])
    (answer,) = model.execute([SimpleNamespace(tensors=[Tensor("frames", tensor)])])
    given = {tensor.named: tensor.array for tensor in answer.tensors}
    with load(path, threads=1) as detector:
        for row, frame in enumerate(frames):
            expected, real = detector(frame), given["scores"][row] > 0.5
            assert real.sum() == len(expected)
            for name in ("boxes", "scores", "classes"):
                np.testing.assert_array_equal(given[name][row][real], getattr(expected, name))


# --- engines


def write_engine(path: Path, contract: Contract, **fields: Any) -> Path:
    """An engine by its sidecar; nothing here looks into it."""
    path.write_bytes(b"plan")
    runtime = fields.pop("runtime", "TensorRT")
    facts: dict[str, Any] = {
        "engine": path.name,
        "engine_sha256": sha256_of_file(path),
        "engine_bytes": 4,
        "runtime": runtime,
        "loaders": LOADERS[runtime],
        "runtime_version": "10.13.3",
        "irforge_version": "0",
        "platform": "linux-x86_64",
        "compute_capabilities": ["8.9"],
        "onnx": Source(name="x.onnx", sha256="0" * 64),
        "profile": {"frames": [[1, 1, 64, 64], [4, 1, 64, 64], [16, 1, 64, 64]]},
        "build_seconds": 1,
        "built_at": "2026-01-01T00:00:00+00:00",
    }
    sidecar = Sidecar(**(facts | fields), contract=contract)
    sidecar_path(path).write_text(sidecar.model_dump_json(by_alias=True))
    return path


def test_an_engine_is_served_as_a_plan(tmp_path: Path, schema: Any) -> None:
    contract = read_contract(write_box_model(tmp_path / "x.onnx"))
    engine = write_engine(tmp_path / "peaks.engine", contract)
    package(engine, "triton", tmp_path / "repository")
    config = configs(tmp_path / "repository", schema)["peaks"]
    assert (config.backend, config.max_batch_size) == ("tensorrt", 16)
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert (tmp_path / "repository" / "peaks" / "1" / "model.plan").read_bytes() == b"plan"
    assert "TensorRT 10.13.3" in (tmp_path / "repository" / "README.md").read_text()
    with pytest.raises(UsageError, match="at most 16 frames"):
        package(engine, "triton", tmp_path / "larger", batch=32)


def test_engines_that_triton_cannot_load_are_refused(tmp_path: Path) -> None:
    contract = read_contract(write_box_model(tmp_path / "x.onnx"))
    rtx = write_engine(tmp_path / "x.rtx.engine", contract, runtime="TensorRT-RTX")
    with pytest.raises(UsageError, match="no TensorRT plan"):
        package(rtx, "triton", tmp_path / "repository")
    needy = write_engine(tmp_path / "x.engine", contract, plugins=[Plugin(name="libirforge_plugins.so", sha256="")])
    with pytest.raises(UsageError, match=r"libirforge_plugins\.so"):
        package(needy, "triton", tmp_path / "repository")
    unknown = write_engine(tmp_path / "y.engine", contract, profile={})
    with pytest.raises(ArtifactError, match="which batches"):
        package(unknown, "triton", tmp_path / "repository")
    unknown.write_bytes(b"another")
    with pytest.raises(ArtifactError, match="vouches for"):
        package(unknown, "triton", tmp_path / "repository")
    assert not (tmp_path / "repository").exists() and not list(tmp_path.glob(".*"))


def test_re_scoring_that_needs_the_raw_frame_is_refused(tmp_path: Path) -> None:
    write_companion(tmp_path / "judge.onnx")
    path = write_box_model(tmp_path / "peaks.onnx")
    name_companion(path)
    model = load_model(path)
    embed_contract(model, read_contract(model).with_input(gain={"kind": "min-max"}))
    save_model(path, model)
    with pytest.raises(UsageError, match="before gain control"):
        package(path, "triton", tmp_path / "repository")


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    model = write_box_model(tmp_path / "peaks.onnx")
    command = [sys.executable, "-m", "irforge.cli", "package", str(model), "--for", "triton", "-o", "r"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == (
        "r: peaks.onnx for triton\nIn it: tritonserver --model-repository=. ; clients ask 'peaks', see README.md\n"
    )
