"""A model repository for NVIDIA Triton Inference Server.

The fields are those of Triton's model_config.proto. Clients ask one model, named like the deployable, with tensors that
were made of frames as the contract says, and get boxes, scores and classes, in pixels of that tensor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irforge.artifact import load_model
from irforge.errors import ArtifactError, UsageError
from irforge.files import write_text
from irforge.graph import Graph
from irforge.rescoring import OUTPUT
from irforge.runtime.package.deployable import Deployable
from irforge.runtime.package.standalone import shipped
from irforge.runtime.package.target import Target
from irforge.runtime.rescoring import spec_of
from irforge.runtime.sidecar import Sidecar

_HERE = "irforge.runtime.package.standalone"
_TYPES = {
    **{"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64"},
    **{"float16": "TYPE_FP16", "float32": "TYPE_FP32"},
}
_BATCH = 8

Tensors = Mapping[str, tuple[str, Sequence[int]]]
"""By name: NumPy dtype, and sizes without the batch; -1 is free."""

_TARGETS: Tensors = {
    "boxes": ("float32", [-1, 4]),
    "scores": ("float32", [-1]),
    "classes": ("int64", [-1]),
    "centres": ("float32", [-1, 2]),
    "areas": ("float32", [-1]),
}


@dataclass(frozen=True)
class _Batch:
    """`most` is Triton's max_batch_size; where that is 0, the batch is the graph's own and leads all `sizes`."""

    most: int = 0
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Triton(Target):
    """`batch`: at most so many frames in a run of a graph whose batch is free; None is 8, or what an engine takes."""

    batch: int | None = None

    def check(self, deployable: Deployable) -> None:
        path, spec, sidecar = deployable.path, deployable.contract.input, deployable.sidecar
        if path.name.endswith(".rtx.engine"):
            raise UsageError(
                f"'{path}' is no TensorRT plan: Triton does not load what TensorRT-RTX compiled",
                "Package the .onnx, or an .engine that 'irforge build' made with TensorRT",
            )
        if sidecar is not None and sidecar.plugins:
            raise UsageError(
                f"'{path}' needs the plugin library '{sidecar.plugins[0].name}', which a model repository cannot carry",
                "Build it again with --custom-ops body",
            )
        if spec.fit.kind == "tile":
            raise UsageError(
                f"'{path}' cuts frames into tiles, which Triton's clients would have to do",
                "Export with fit 'squash', 'letterbox' or 'pad-to-multiple'",
            )
        if deployable.companion is None:
            return
        if deployable.contract.output.kind != "boxes" or spec.door != "uint8":
            raise UsageError(
                f"'{path}' re-scores {deployable.contract.output.kind} behind a {spec.door} door, which its model for"
                " Triton does not",
                "Package the detector without its companion",
            )
        if spec.bit_depth > 8 or spec.gain.kind != "none":
            raise UsageError(
                f"'{path}' has its boxes judged again on frames before gain control, which never reach Triton",
                "Package the detector without its companion",
            )

    def write(self, deployable: Deployable, folder: Path) -> list[str]:
        contract, name = deployable.contract, deployable.name
        batch, frames, outputs = self._interface(deployable)
        asked = {"irforge.contract": json.dumps(json.loads(contract.to_json()))}
        threshold = {"score_threshold": repr(contract.output.score_threshold)}
        if deployable.companion is not None:
            parts = {"detector": f"{name}_graph", "encoder": f"{name}_encoder"}
            _graph(folder, parts["detector"], deployable.path, _config(parts["detector"], batch, frames, outputs))
            judge = _config(parts["encoder"], _Batch(), *_encoder(deployable))
            _graph(folder, parts["encoder"], deployable.companion, judge)
            config = _config(name, batch, frames, outputs, asked | threshold | parts)
            sources = (f"{_HERE}.triton_rescored", f"{_HERE}.rescoring", "irforge.frames.crops")
            _python(folder, name, config, *sources)
        elif contract.output.kind == "mask":
            parts = {"detector": f"{name}_graph", "decoder": f"{name}_targets"}
            _graph(folder, parts["detector"], deployable.path, _config(parts["detector"], batch, frames, outputs))
            rules = threshold | {"connectivity": str(contract.output.connectivity)}
            config = _config(parts["decoder"], batch, outputs, _TARGETS, rules)
            sources = (f"{_HERE}.triton_targets", f"{_HERE}.targets", "irforge.frames.geometry")
            _python(folder, parts["decoder"], config, *sources)
            steps = [_step(parts["detector"], frames, outputs), _step(parts["decoder"], outputs, _TARGETS)]
            ensemble = f"ensemble_scheduling {{\n  step [{','.join(steps)}\n  ]\n}}\n"
            _put(folder, name, _config(name, batch, frames, _TARGETS, asked | threshold) + _PLATFORM + ensemble)
        else:
            _graph(folder, name, deployable.path, _config(name, batch, frames, outputs, asked | threshold))
        write_text(folder / "README.md", _readme(deployable, batch, frames))
        return [f"In it: tritonserver --model-repository=. ; clients ask '{name}', see README.md"]

    def _interface(self, deployable: Deployable) -> tuple[_Batch, Tensors, Tensors]:
        """Batch, input and outputs of the detector, in the sizes of the graph: Triton holds a configuration to them."""
        spec, output, sidecar = deployable.contract.input, deployable.contract.output, deployable.sidecar
        shapes: dict[str, Sequence[int | str | None]] = {}
        if sidecar is None:
            graph = Graph(load_model(deployable.path))
            shapes = {name: graph.shape(name) or () for name in (spec.name, *(t.name for t in output.tensors))}
            first = next(iter(shapes[spec.name]), None)
            batch = _Batch(sizes=(first,)) if isinstance(first, int) else _Batch(self.batch or _BATCH)
        else:
            batch, free = self._batch_of(deployable, sidecar), (None, None)
            plane = free if spec.is_dynamic else spec.size
            shapes = {tensor.name: tensor.shape for tensor in output.tensors}
            shapes |= {"mask": (None, 1, *plane)} if output.kind == "mask" else {}
            shapes[spec.name] = (None, spec.channels, *plane)
        if not batch.most and self.batch is not None:
            raise UsageError(f"the batch of '{deployable.path}' is fixed", "Leave --batch out")
        sizes = {name: [side if isinstance(side, int) else -1 for side in shape[1:]] for name, shape in shapes.items()}
        outputs = {tensor.name: (tensor.dtype, sizes[tensor.name]) for tensor in output.tensors}
        return batch, {spec.name: (spec.door, sizes[spec.name])}, outputs

    def _batch_of(self, deployable: Deployable, sidecar: Sidecar) -> _Batch:
        name = deployable.contract.input.name
        if name not in sidecar.profile:
            raise ArtifactError(
                f"the sidecar of '{deployable.path}' does not say which batches it takes",
                "Package the .onnx, or an engine that 'irforge build' made of a graph with a free batch",
            )
        least, _, greatest = (shape[0] for shape in sidecar.profile[name])
        if (self.batch or 0) > greatest:
            raise UsageError(
                f"'{deployable.path}' was built for at most {greatest} frames, not {self.batch}",
                f"Build it again with --batch 1,{self.batch},{self.batch}",
            )
        return _Batch(self.batch or greatest) if least == 1 else _Batch(sizes=(greatest,))


def _encoder(deployable: Deployable) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of the companion; see `irforge.rescoring.Rescorer`."""
    spec = spec_of(deployable.contract.companions[0], deployable.contract)
    inputs: dict[str, tuple[str, Sequence[int]]] = {"scores": ("float32", [-1]), "classes": ("int64", [-1])}
    if spec.crop_size is not None:
        inputs["crops"] = ("float32", [-1, 3, spec.crop_size, spec.crop_size])
    else:
        inputs["frame"] = ("uint8", [1, 3, -1, -1])
        inputs |= {"row_weights": ("float32", [-1, -1]), "column_weights": ("float32", [-1, -1])}
    return inputs, {OUTPUT: ("float32", [-1])}


_PLATFORM = 'platform: "ensemble"\n'


def _graph(folder: Path, name: str, model: Path, config: str) -> None:
    engine = model.suffix == ".engine"
    # Triton's own names; ONNX Runtime may run on either device, a plan on a GPU only.
    backend, file, kind = (
        ("tensorrt", "model.plan", "KIND_GPU") if engine else ("onnxruntime", "model.onnx", "KIND_AUTO")
    )
    _put(folder, name, config + _run_by(backend, kind))
    target = folder / name / "1" / file
    if engine:
        shutil.copyfile(model, target)
    else:
        # Not a copy of the file: its weights may lie beside it.
        target.write_bytes(load_model(model).SerializeToString())


def _python(folder: Path, name: str, config: str, model: str, *modules: str) -> None:
    _put(folder, name, config + _run_by("python", "KIND_CPU"))
    write_text(folder / name / "1" / "model.py", shipped(model))
    for module in modules:
        write_text(folder / name / "1" / f"{module.rpartition('.')[2]}.py", shipped(module))


def _put(folder: Path, name: str, config: str) -> None:
    (folder / name / "1").mkdir(parents=True)
    write_text(folder / name / "config.pbtxt", config)


def _run_by(backend: str, kind: str) -> str:
    return f'backend: "{backend}"\ninstance_group [ {{ count: 1 kind: {kind} }} ]\n'


def _config(
    name: str, batch: _Batch, inputs: Tensors, outputs: Tensors, parameters: Mapping[str, str] | None = None
) -> str:
    """What all models say, in protobuf's text format, whose strings are quoted as JSON's are."""
    lines = [
        f"name: {json.dumps(name)}",
        f"max_batch_size: {batch.most}",
        f"input {_tensors(inputs, batch)}",
        f"output {_tensors(outputs, batch)}",
        "version_policy { latest { num_versions: 1 } }",
    ]
    for key, value in (parameters or {}).items():
        held = f"value {{ string_value: {json.dumps(value)} }}"
        lines.append(f"parameters {{ key: {json.dumps(key)} {held} }}")
    return "\n".join(lines) + "\n"


def _tensors(tensors: Tensors, batch: _Batch) -> str:
    listed = [
        f"{{ name: {json.dumps(name)} data_type: {_TYPES[dtype]} dims: {[*batch.sizes, *sizes]} }}"
        for name, (dtype, sizes) in tensors.items()
    ]
    return "[\n  " + ",\n  ".join(listed) + "\n]"


def _step(model: str, inputs: Tensors, outputs: Tensors) -> str:
    maps = [f"input_map {{ key: {json.dumps(name)} value: {json.dumps(name)} }}" for name in inputs]
    maps += [f"output_map {{ key: {json.dumps(name)} value: {json.dumps(name)} }}" for name in outputs]
    lines = [f"model_name: {json.dumps(model)}", "model_version: -1", *maps]
    return "\n    {\n      " + "\n      ".join(lines) + "\n    }"


def _readme(deployable: Deployable, batch: _Batch, frames: Tensors) -> str:
    contract, spec, sidecar = deployable.contract, deployable.contract.input, deployable.sidecar
    shape = [f"1 to {batch.most}" if batch.most else batch.sizes[0], *frames[spec.name][1]]
    needs = "Triton with the ONNX Runtime backend"
    if sidecar is not None:
        needs = (
            f"Triton with TensorRT {sidecar.runtime_version or '(of the version that built it)'} and a GPU of SM"
            f" {', '.join(sidecar.compute_capabilities)}: a plan loads nowhere else"
        )
    judged = (
        "\nBoxes are judged again by an image encoder, on the pixels of the tensor: as `irforge run` does it where a"
        "\nframe needs no resizing; resized frames are judged resized.\n"
        if deployable.companion is not None
        else ""
    )
    classes = ", ".join(f"{number} {label}" for number, label in enumerate(contract.output.classes))
    filled = "Rows with a score of 0 fill up." if contract.output.kind == "mask" else "Rows come with falling scores."
    return f"""# {deployable.path.name}

```
tritonserver --model-repository=.
```

needs {needs}; where masks become targets or boxes are judged again, its Python backend too, with NumPy.

Ask `{deployable.name}`: input `{spec.name}`, {spec.door}, {" x ".join(map(str, shape))} (-1: any side that the contract
allows), made of frames as the contract says: `irforge.frames.prepare(frame, contract.input)`, or frames.py of
`irforge package --for folder`. The contract is in the model's configuration, which clients can ask for:
`parameters["irforge.contract"]`.

Answers are `boxes` (left, top, right, bottom; half-open edges, in pixels of the tensor), `scores` and `classes`
({classes}). What counts has a score above {contract.output.score_threshold:g}
(`parameters["score_threshold"]`). {filled} The geometry that `prepare` returns maps boxes to the frame.
{judged}"""
