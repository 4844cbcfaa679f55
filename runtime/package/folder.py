"""A folder that detects by itself: the model, a runner of one page, and the few lines of irforge that it needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from irforge.artifact import load_model
from irforge.contract import Contract
from irforge.errors import UsageError
from irforge.files import write_json, write_text
from irforge.runtime.backends.ort import has_half_scales
from irforge.runtime.package.deployable import Deployable
from irforge.runtime.package.standalone import shipped
from irforge.runtime.package.target import Target

_HERE = "irforge.runtime.package.standalone"
_SOURCES = (f"{_HERE}.frames", f"{_HERE}.targets", f"{_HERE}.rescoring")
_SHARED = ("irforge.frames.geometry", "irforge.frames.resize", "irforge.frames.crops")
_REQUIREMENTS = "numpy>=1.26\nopencv-python-headless>=4.9\nonnxruntime>=1.18\n"


@dataclass(frozen=True)
class Folder(Target):
    """`python DIR/run.py FRAMES > found.jsonl`, with numpy, opencv and onnxruntime and without irforge."""

    def check(self, deployable: Deployable) -> None:
        if deployable.sidecar is not None:
            raise UsageError(
                f"the runner of a folder is ONNX Runtime, and '{deployable.path}' is an engine",
                "Package the .onnx that it was built from",
            )
        if deployable.contract.input.fit.kind == "tile":
            raise UsageError(
                f"'{deployable.path}' cuts frames into tiles, which the runner of a folder does not",
                "Export with fit 'squash', 'letterbox' or 'pad-to-multiple', or use 'irforge run'",
            )

    def write(self, deployable: Deployable, folder: Path) -> list[str]:
        model = load_model(deployable.path)
        # Not a copy of the file: its weights may lie beside it.
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        config = {"session.disable_quant_qdq": "1"} if has_half_scales(model) else {}
        runner = shipped(f"{_HERE}.run").replace("str] = {}", f"str] = {json.dumps(config)}")
        write_text(folder / "run.py", runner)
        for module in (*_SOURCES, *_SHARED):
            write_text(folder / f"{module.rpartition('.')[2]}.py", shipped(module))
        for companion in deployable.contract.companions:
            assert deployable.companion is not None
            inside = folder / companion.path
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(deployable.companion, inside)
        write_json(folder / "contract.json", deployable.contract.model_dump(mode="json"))
        write_text(folder / "requirements.txt", _REQUIREMENTS)
        write_text(folder / "README.md", _readme(deployable.path.name, deployable.contract))
        return ["In it: pip install -r requirements.txt; python run.py FRAMES > found.jsonl"]


def _readme(name: str, contract: Contract) -> str:
    spec, output = contract.input, contract.output
    size = "of any size that the contract allows" if spec.is_dynamic else f"which become {spec.size[1]}x{spec.size[0]}"
    centre = ", `centre`" if output.kind == "mask" else ""
    return f"""# {name}

```
pip install -r requirements.txt
python run.py FRAME.png CLIP.mp4 > found.jsonl
```

finds {", ".join(output.classes)} in {spec.bit_depth}-bit frames, {size}
(fit `{spec.fit.kind}`, gain `{spec.gain.kind}`), and writes what `irforge run --json` writes: a line of JSON a frame,
with `box` [left, top, right, bottom] in frame pixels (edges, half-open), `score` above {output.score_threshold:g},
`class`, `label`{centre} and `area` of each target. The detector is {contract.provenance.detector}, in
{contract.provenance.precision}.

| file | what it is |
|---|---|
| model.onnx | the graph, with its contract in the metadata under `irforge.contract` |
| contract.json | the same contract, to be read |
| run.py | the whole way of a frame, on one page |
| frames.py, geometry.py, resize.py | from levels as stored to the tensor: depth, colour, gain, fit |
| targets.py | from outputs to detections |
| rescoring.py, crops.py | for models whose boxes an image encoder judges again |
"""
