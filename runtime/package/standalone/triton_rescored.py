"""Triton's Python backend: the boxes of a detector, judged again by its image encoder, both models of this repository.

Needs NumPy, which Triton's image has. The encoder sees the tensor's own pixels.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from irforge.runtime.package.standalone.rescoring import constants_of, rescored

_OUTPUTS = ["boxes", "scores", "classes"]


class TritonPythonModel:
    """See the module's first lines; `initialize` and `execute` are called by Triton."""

    def initialize(self, args: dict[str, Any]) -> None:
        values = {key: held["string_value"] for key, held in json.loads(args["model_config"])["parameters"].items()}
        contract = json.loads(values["irforge.contract"])
        self.input, self.spec = contract["input"]["name"], constants_of(contract["companions"][0])
        self.detector, self.encoder = values["detector"], values["encoder"]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        frames = pb_utils.get_input_tensor_by_name(request, self.input)
        try:
            boxes, scores, classes = self._run(self.detector, [frames], _OUTPUTS)
            pixels = frames.as_numpy()
            boxes = np.clip(boxes, 0, np.array(pixels.shape[:1:-1] * 2, np.float32))
            scores = np.stack([self._judged(*row) for row in zip(pixels, boxes, scores, classes, strict=True)])
        except (ValueError, pb_utils.TritonModelException) as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = [np.take_along_axis(column, order, axis=1) for column in (scores, classes)]
        columns = [np.take_along_axis(boxes, order[..., None], axis=1), *ranked]
        tensors = [pb_utils.Tensor(name, column) for name, column in zip(_OUTPUTS, columns, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _judged(self, frame: Any, boxes: Any, scores: Any, classes: Any) -> Any:
        image = frame[0] if len(frame) == 1 else np.moveaxis(frame, 0, 2)
        # As on the host end of irforge: what is no box is not judged.
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (scores > np.float32(self.spec["lower"]))
        found = {"boxes": boxes[real], "scores": scores[real], "classes": classes[real]}
        scores = np.array(scores, np.float32)
        scores[real] = rescored(found, image, self.spec, self._encode)
        return scores

    def _encode(self, **feeds: Any) -> Any:
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in feeds.items()]
        return self._run(self.encoder, tensors, ["rescored"])[0]

    def _run(self, model: str, tensors: list[Any], outputs: list[str]) -> list[Any]:
        asked = pb_utils.InferenceRequest(model_name=model, requested_output_names=outputs, inputs=tensors)
        answer = asked.exec()
        if answer.has_error():
            raise pb_utils.TritonModelException(answer.error().message())
        return [pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in outputs]
