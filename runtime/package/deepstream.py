"""A configuration of DeepStream's Gst-nvinfer, with labels and a parser of irforge's boxes.

nvinfer scales frames to the network's size, makes float planes of them, y = net-scale-factor * (x - offset), and hands
those to a TensorRT engine. It finds boxes by a function that it loads, and of a mask it gives the class of each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from irforge.artifact import load_model, save_model
from irforge.contract import Contract
from irforge.errors import UsageError
from irforge.files import write_text
from irforge.graph import Graph
from irforge.runtime.compilers.trtexec import trtexec_commands
from irforge.runtime.package.deployable import Deployable
from irforge.runtime.package.door import prove_equal, with_float_door
from irforge.runtime.package.target import Target

CONFIG = "config_infer_primary.txt"
PARSER = "NvDsInferParseIrforge"
LIBRARY = "libirforge_parser.so"

LUMA: dict[str, tuple[float, float]] = {"full": (1.0, 0.0), "limited": (255 / 219, 16.0)}
"""net-scale-factor and offset that bring a video's levels to 0..255, by the range of its luma (ITU-R BT.601)."""

_BATCH = 1
_GRAY, _RGB = 2, 0
_FITS = {"squash": "", "letterbox": "maintain-aspect-ratio=1\nsymmetric-padding=1\n", "pad-to-multiple": ""}


@dataclass(frozen=True)
class DeepStream(Target):
    """`batch`: streams that nvinfer takes together; None is 1, or what the graph is fixed to. `luma`: range of the
    video's levels."""

    batch: int | None = None
    luma: Literal["full", "limited"] = "full"

    def check(self, deployable: Deployable) -> None:
        path, contract, spec = deployable.path, deployable.contract, deployable.contract.input
        if path.name.endswith(".rtx.engine"):
            raise UsageError(
                f"'{path}' is no TensorRT plan: DeepStream does not load what TensorRT-RTX compiled",
                "Package the .onnx",
            )
        if deployable.sidecar is not None:
            raise UsageError(
                f"nvinfer hands float planes to an engine of its own, whose door '{path}' cannot be given any more",
                "Package the .onnx that it was built from: its copy has that door, and is then built on the target",
            )
        if deployable.companion is not None:
            raise UsageError(
                f"'{path}' re-scores its boxes by an image encoder, which nvinfer cannot do",
                "Package the detector without its companion, or for triton or folder",
            )
        if spec.is_dynamic or spec.fit.kind == "tile":
            what = "takes frames of many sizes" if spec.is_dynamic else "cuts frames into tiles"
            raise UsageError(
                f"'{path}' {what}, nvinfer scales all to one", "Export with --size, the camera's, and a fixed size"
            )
        if spec.bit_depth > 8:
            raise UsageError(
                f"'{path}' is for {spec.bit_depth}-bit frames, nvinfer takes video of 8 bits",
                "Train and export for 8-bit frames, or use 'irforge run'",
            )
        if spec.door == "uint8" and spec.gain.kind != "none":
            raise UsageError(
                f"'{path}' asks for gain control '{spec.gain.kind}' on the host, which nvinfer does not have",
                "Have the camera do it and export without, or use 'irforge run'",
            )
        if contract.output.kind == "mask" and contract.output.classes[1:]:
            raise UsageError(f"'{path}' has a mask of {len(contract.output.classes)} classes", "Package one of a class")

    def write(self, deployable: Deployable, folder: Path) -> list[str]:
        name, original = deployable.name, load_model(deployable.path)
        shape = Graph(original).shape(deployable.contract.input.name) or (1,)
        if isinstance(shape[0], int) and self.batch not in (None, shape[0]):
            raise UsageError(f"the batch of '{deployable.path}' is fixed at {shape[0]}", "Leave --batch out")
        batch = shape[0] if isinstance(shape[0], int) else self.batch or _BATCH
        model, contract = with_float_door(original, deployable.contract, str(deployable.path))
        prove_equal(original, model, deployable.contract)
        save_model(folder / f"{name}.onnx", model)
        write_text(folder / CONFIG, self._config(name, contract, batch))
        write_text(folder / "labels.txt", "\n".join(contract.output.classes) + "\n")
        lines = [
            f"{name}.onnx is a copy with a float32 door, proven equal on whole levels; build its engine: see README.md"
        ]
        if contract.output.kind == "boxes":
            assets = files("irforge.runtime.package").joinpath("assets")
            for asset in ("irforge_parser.cpp", "Makefile"):
                write_text(folder / asset, assets.joinpath(asset).read_text())
            lines.append(f"make in it builds {LIBRARY}, where DeepStream's headers are")
        else:
            lines.append(
                "nvinfer gives the mask, not its targets: they are components that the application has to find"
            )
        write_text(folder / "README.md", self._readme(name, contract, batch))
        return lines

    def _config(self, name: str, contract: Contract, batch: int) -> str:
        spec, output = contract.input, contract.output
        height, width = spec.size
        other = "limited" if self.luma == "full" else "full"
        offsets = {luma: ";".join([str(offset)] * spec.channels) for luma, (_, offset) in LUMA.items()}
        is_mask = output.kind == "mask"
        result = f"segmentation-threshold={output.score_threshold!r}\n" if is_mask else _DETECTOR
        last = "" if is_mask else f"\n[class-attrs-all]\npre-cluster-threshold={output.score_threshold!r}\n"
        return f"""# {contract.provenance.detector}, {contract.provenance.precision}: written by irforge package.
[property]
gpu-id=0
gie-unique-id=1
process-mode=1
# 0 detector, 2 segmentation
network-type={2 if is_mask else 0}
# Built beforehand: with no onnx-file, nvinfer cannot build one of other precisions in its place.
model-engine-file={name}.engine
# Says nothing here: the types are in the graph.
network-mode=0
batch-size={batch}
infer-dims={spec.channels};{height};{width}
# 0 RGB, 2 gray
model-color-format={_GRAY if spec.channels == 1 else _RGB}
# Video of {self.luma} range. For {other} range: net-scale-factor={LUMA[other][0]!r}, offsets={offsets[other]}
net-scale-factor={LUMA[self.luma][0]!r}
offsets={offsets[self.luma]}
{_FITS[spec.fit.kind]}labelfile-path=labels.txt
num-detected-classes={len(output.classes)}
output-blob-names={";".join(tensor.name for tensor in output.tensors)}
{result}{last}"""

    def _readme(self, name: str, contract: Contract, batch: int) -> str:
        spec = contract.input
        height, width = spec.size
        shape = (batch, spec.channels, height, width)
        commands = trtexec_commands(f"{name}.onnx", f"{name}.engine", {spec.name: (shape, shape, shape)})
        fit = {
            "squash": "nvinfer scales frames of another size by its own rule, not by the contract's",
            "letterbox": f"nvinfer pads with level 0, the contract with {spec.pad_level:g}, and scales by its own rule",
            "pad-to-multiple": "nvinfer scales frames of another size, where the contract pads them",
        }[spec.fit.kind]
        return f"""# {name} for DeepStream

On the machine that runs it, because an engine belongs to a GPU and a version of TensorRT:

```
{commands["10"]}
```

with TensorRT 10, and with 11

```
{commands["11"]}
```

{_BOXES if contract.output.kind == "boxes" else _MASK}
Set `{CONFIG}` as `config-file-path` of nvinfer.

- `{name}.onnx` takes float32 levels from 0 to 255, as nvinfer hands them over; it rounds them, clips them, and is then
  the graph that was packaged. It is a deployable itself: `irforge run {name}.onnx ...` shows what to expect.
- Frames: `nvstreammux width={width} height={height}`, the network's own size; {fit}.
- Levels: `net-scale-factor` and `offsets` are for luma of {self.luma} range. Cameras and decoders that keep to ITU-R
  BT.601 give 16..235 (limited); unscaled, that is an error of up to 20 levels of 255. The configuration names the
  values for the other range.
- Gray is luma: colour video becomes gray by ITU-R 601, whatever the contract says (`{spec.colour}`).
"""


_DETECTOR = f"""parse-bbox-func-name={PARSER}
custom-lib-path={LIBRARY}
# None: the graph has done it.
cluster-mode=4
"""
_BOXES = f"""```
make
```

builds `{LIBRARY}`, which finds the boxes; `DEEPSTREAM=` names an installation elsewhere than in
/opt/nvidia/deepstream/deepstream.
"""
_MASK = """nvinfer has no way to return targets that a mask consists of: it attaches `NvDsInferSegmentationMeta`, whose
`class_map` is 0 where the probability exceeds the threshold and -1 elsewhere. Targets are its connected components,
which a probe has to find; `irforge package --for triton` and `--for folder` do that.
"""
