"""Which layout a stranger's outputs have: told by shapes, by the values of a few frames, and by what the file says.

A layout is one function; it returns a reading with its reasons, or raises `NotThisLayout` with what speaks against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from irforge.errors import ExportError, UsageError
from irforge.export.adopt.maps import centernet, logits
from irforge.export.adopt.observation import NearlyThisLayout, NotThisLayout, Observation
from irforge.export.adopt.reading import Reading
from irforge.export.adopt.rows import detr, dets, ssd, yolo, yolo_e2e

LAYOUTS: dict[str, Callable[[Observation], Reading]] = {
    "yolo-e2e": yolo_e2e,
    "dets": dets,
    "detr": detr,
    "ssd": ssd,
    "centernet": centernet,
    "yolo": yolo,
    "logits": logits,
}
KINDS = {name: "mask" if name == "logits" else "boxes" for name in LAYOUTS}
"""What a layout's outputs become, in the order in which they are tried: the first one that fits is taken."""


def read_outputs(seen: Observation, where: str) -> Reading:
    """The meaning of a stranger's outputs.

    Raises:
        UsageError: no such layout or output, or the outputs are not of the layout asked for.
        ExportError: no layout fits, or a mask of labels came out where probabilities are needed.
    """
    choices = seen.choices
    if choices.layout and choices.layout not in LAYOUTS:
        raise UsageError(f"there is no layout '{choices.layout}'", f"Layouts: {', '.join(LAYOUTS)}")
    missing = next((name for name in choices.outputs if name not in seen.values), None)
    if missing:
        raise UsageError(f"'{where}' has no output '{missing}'", f"It has {', '.join(seen.values)}")
    if choices.outputs:
        seen = replace(seen, values={name: seen.values[name] for name in choices.outputs})
    wanted = [choices.layout] if choices.layout else list(LAYOUTS)
    refusals = {}
    near = ""
    for name in wanted:
        if choices.kind and choices.kind != KINDS[name]:
            refusals[name] = f"it gives a {KINDS[name]}, not {choices.kind}" if choices.layout else ""
            continue
        try:
            return LAYOUTS[name](seen)
        except NotThisLayout as against:
            refusals[name] = str(against)
            near = near or (f"; for '{name}', {against}" if isinstance(against, NearlyThisLayout) else "")
    if choices.layout:
        raise UsageError(
            f"the outputs of '{where}' are not of layout '{choices.layout}': {refusals[choices.layout]}",
            "Leave out --layout to have it found out",
        )
    shapes = ", ".join(" x ".join([f"{name} N", *map(str, value.shape[1:])]) for name, value in seen.values.items())
    _refuse_labels(seen, where)
    raise ExportError(
        f"the outputs of '{where}' are no detections or mask that adopt knows ({shapes}){near}",
        f"Name what they are with --layout ({', '.join(LAYOUTS)}), or export the network with its boxes decoded",
    )


def _refuse_labels(seen: Observation, where: str) -> None:
    for name, value in seen.values.items():
        if value.dtype.kind in "iu" and value.ndim in (3, 4) and value.shape[-2:] == (seen.height, seen.width):
            raise ExportError(
                f"output '{name}' of '{where}' holds {value.dtype} class numbers a pixel, and a threshold needs"
                " probabilities",
                "Export it without the final ArgMax",
            )
