"""Does an adopted model find what its own framework finds? `python benchmarks/adopt.py MODEL.onnx REFERENCE.json`.

The reference holds the framework's own boxes, made where that framework is installed:

    {"framework": "NAME VERSION", "conf": 0.25, "frames": {"test/a.png": [[x0, y0, x1, y1, score, class], ...], ...}}

Boxes are in pixels of the frame, and only those above `conf` are listed. Frames are looked for under --frames. Boxes
are clipped to the frame, and what has no area in it (a box in the padding) counts on neither side. Each box is paired
with the nearest one of its class; what has no partner is reported with how far it stands above the threshold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from irforge.errors import CheckFailed, InputError, run_command

BOX_LIMIT, SCORE_LIMIT = 0.5, 1e-3
"""Of the acceptance: pixels, and probability."""


def compare_with_framework(model: Path, reference: Path, frames: Path) -> dict[str, Any]:
    """JSON-ready: frames, boxes of both, those without a partner, largest and mean differences of boxes and scores.

    Raises:
        InputError: the reference is not as the module says, or a frame is missing.
    """
    import json

    import numpy as np

    import irforge
    from irforge.detections import Detections
    from irforge.frames import read_frame
    from irforge.runtime.pairing import pair_detections

    try:
        told = json.loads(reference.read_text())
        conf, answers = float(told["conf"]), dict(told["frames"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{reference}' is no reference: {error}", "See the head of benchmarks/adopt.py") from None
    moved: list[float] = []
    changed: list[float] = []
    lone: list[float] = []
    counts = [0, 0]
    outside = 0
    with irforge.load(model, threads=1, threshold=conf) as detector:
        for name, rows in answers.items():
            table = np.asarray(rows, np.float32).reshape(-1, 6)
            frame = read_frame(frames / name)
            answer = Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
            answer = answer.take(np.arange(min(len(answer), _slots(detector.contract))))
            expected = _within(answer, *frame.shape[:2])
            outside += len(answer) - len(expected)
            found = detector(frame, name)
            pairing = pair_detections(expected, found)
            moved += np.abs(expected.boxes[pairing.one] - found.boxes[pairing.other]).max(axis=1, initial=0).tolist()
            changed += np.abs(expected.scores[pairing.one] - found.scores[pairing.other]).tolist()
            lone += (expected.scores[pairing.only_one] - conf).tolist()
            lone += (found.scores[pairing.only_other] - conf).tolist()
            counts = [counts[0] + len(answer), counts[1] + len(found)]
    return {
        "framework": told.get("framework", ""),
        "model": model.name,
        "frames": len(answers),
        "boxes_of_the_framework": counts[0],
        "of_them_outside_the_frame": outside,
        "boxes_found": counts[1],
        "without_partner": len(lone),
        "largest_lone_margin": max(lone, default=0.0),
        "largest_box_difference": max(moved, default=0.0),
        "mean_box_difference": float(np.mean(moved)) if moved else 0.0,
        "largest_score_difference": max(changed, default=0.0),
        "passed": max(moved, default=0) <= BOX_LIMIT
        and max([*changed, *lone], default=0) <= SCORE_LIMIT
        and counts[0] > 0,
    }


def _within(detections: Any, height: int, width: int) -> Any:
    """What of the boxes lies in the frame, without those of no area."""
    from dataclasses import replace

    import numpy as np

    boxes = np.clip(detections.boxes, 0, np.array([width, height] * 2, np.float32))
    return replace(detections, boxes=boxes, areas=None).take((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def _slots(contract: Any) -> int:
    """How many boxes the deployable gives at most."""
    boxes = next(tensor for tensor in contract.output.tensors if tensor.name == "boxes")
    return int(boxes.shape[1])


def main(
    model: Annotated[Path, typer.Argument(help="The adopted .onnx file.")],
    reference: Annotated[Path, typer.Argument(help="The framework's boxes (.json).")],
    frames: Annotated[Path, typer.Option(help="Folder that the reference's names are relative to.")] = Path(),
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the figures as JSON.")] = None,
) -> None:
    """Compare an adopted model's boxes with those of its own framework."""
    from irforge.files import write_json

    figures = compare_with_framework(model, reference, frames)
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' ')}: {f'{value:.3g}' if isinstance(value, float) else value}")
    if output:
        write_json(output, figures)
    if not figures["passed"]:
        raise CheckFailed(
            f"'{model}' differs from its framework by more than {BOX_LIMIT} pixels or {SCORE_LIMIT:g} in a score"
        )


if __name__ == "__main__":
    run_command(main)
