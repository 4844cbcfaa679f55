"""Triton's Python backend: a mask of probabilities becomes targets, in the form in which detectors of boxes answer.

Needs NumPy, which Triton's image has. Frames of a batch have different numbers of targets: zeros fill up, and a score
of 0 is no target.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from irforge.runtime.package.standalone.targets import mask_targets

_SHAPES = {"boxes": (4,), "scores": (), "classes": (), "centres": (2,), "areas": ()}


class TritonPythonModel:
    """See the module's first lines; `initialize` and `execute` are called by Triton."""

    def initialize(self, args: dict[str, Any]) -> None:
        values = json.loads(args["model_config"])["parameters"]
        self.threshold = float(values["score_threshold"]["string_value"])
        self.connectivity = int(values["connectivity"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        masks = pb_utils.get_input_tensor_by_name(request, "mask").as_numpy()
        try:
            found = [mask_targets(mask[0], self.threshold, self.connectivity) for mask in masks]
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        most = max(1, *(len(one["scores"]) for one in found))
        tensors = []
        for name, shape in _SHAPES.items():
            filled = np.zeros((len(found), most, *shape), np.int64 if name == "classes" else np.float32)
            for row, one in zip(filled, found, strict=True):
                row[: len(one[name])] = one[name]
            tensors.append(pb_utils.Tensor(name, filled))
        return pb_utils.InferenceResponse(output_tensors=tensors)
