"""`python run.py FRAME... > found.jsonl`: detect in images or videos; writes what `irforge run --json` writes.

Needs numpy, opencv-python-headless and onnxruntime. What a frame must look like and what the outputs mean is read from
the contract in the model's metadata; frames.py and targets.py do as it says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from irforge.runtime.package.standalone.frames import eight_bit, prepare, read
from irforge.runtime.package.standalone.rescoring import constants_of, rescored
from irforge.runtime.package.standalone.targets import above, decode, rows

MODEL = "model.onnx"
CONFIG: dict[str, str] = {}
"""Session settings that ONNX Runtime needs for this graph."""


def main(paths: list[str]) -> None:
    """Write what is in the files to standard output."""
    folder = Path(__file__).parent
    session = load(folder / MODEL)
    contract = json.loads(session.get_modelmeta().custom_metadata_map["irforge.contract"])
    spec, level = contract["input"], contract["output"]["score_threshold"]
    judge = contract["companions"][0] if contract["companions"] else None
    if judge:
        constants, encoder = constants_of(judge), load(folder / judge["path"])
    batch = session.get_inputs()[0].shape[0]
    names = [output.name for output in session.get_outputs()]
    for index, (name, seconds, frame) in enumerate(read(paths)):
        try:
            tensor, geometry = prepare(frame, spec)
            tensor = np.repeat(tensor, batch if isinstance(batch, int) else 1, axis=0)
            outputs = dict(zip(names, session.run(names, {spec["name"]: tensor}), strict=True))
            found = decode(outputs, contract, geometry, min(level, constants["lower"]) if judge else level)
            if judge:
                found["scores"] = rescored(
                    found, eight_bit(frame, spec), constants, lambda **feeds: encoder.run(["rescored"], feeds)[0]
                )
        except ValueError as error:
            raise ValueError(f"'{name}' {error}") from None
        listed = rows(above(found, level), contract["output"]["classes"])
        print(json.dumps({"index": index, "id": name, "time": seconds, "detections": listed}, allow_nan=False))


def load(path: Path) -> Any:
    """A session on the GPU where this onnxruntime has one, in full FP32."""
    options = onnxruntime.SessionOptions()
    for key, value in CONFIG.items():
        options.add_session_config_entry(key, value)
    known = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
    providers = [(name, known[name]) for name in known if name in onnxruntime.get_available_providers()]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("run.py: name images or videos")
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"run.py: {error}")
