"""A rescorer for a trained detector, by the name of its encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.datasets import Dataset
from irforge.errors import InputError, UsageError
from irforge.files import sha256_of_file
from irforge.rescoring import Pixels, eight_bit
from irforge.train.rescoring.fusion import TorchRescorer

ENCODERS = ("efficientnet-lite0", "resnet", "clip")


def rescorer_by_name(
    by: str,
    contract: Contract,
    support: Iterable[Dataset] = (),
    weights: Path | None = None,
    trust: bool = False,
    alpha: float | Mapping[str, float] | None = None,
    judged: Sequence[str] | None = None,
    limit: int | None = None,
) -> TorchRescorer:
    """PCB with an ImageNet classifier (`efficientnet-lite0`, which has a package, or `resnet`), or CM-CLIP (`clip`).

    Args:
        contract: the detector's.
        support: PCB: the shots that it was fine-tuned on.
        weights, trust: of the encoder, see `load_encoder` and `load_clip`.
        alpha: the detector's share, as published where None: 0.5, and 0.7 with CLIP.
        judged: the classes that may be judged again; None means all.
        limit: at most so many boxes of a frame; None, all, as published.

    Raises:
        UsageError: there is no such encoder, or something that it needs is not given.
        InputError: the support knows none of the detector's classes.
        EnvironmentFault, ArtifactError: the encoder's weights are not here or cannot be read.
    """
    if by not in ENCODERS:
        raise UsageError(f"there is no encoder '{by}' to re-score by", f"Encoders: {', '.join(ENCODERS)}")
    classes = contract.output.classes
    options: dict[str, Any] = {"judged": judged, "limit": limit}
    if alpha is not None:
        options["alpha"] = alpha
    if by == "clip":
        from irforge.train.rescoring.clip import SOURCE, load_clip
        from irforge.train.rescoring.cm_clip import clip_rescorer

        if weights is None:
            raise UsageError("CLIP needs a checkpoint", f"Give with --rescore-weights the path of {SOURCE}")
        source = {"encoder": weights.name, "weights_sha256": sha256_of_file(weights)}
        return clip_rescorer(load_clip(weights, trust=trust), classes, source=source, **options)
    from irforge.train.rescoring.encoders import load_encoder
    from irforge.train.rescoring.pcb import pcb_rescorer

    shots = list(support)
    if not shots:
        raise UsageError("PCB compares with support boxes, and there are none", "Give the shots with --support DATA")
    encoder, digest = load_encoder(by, weights, trust=trust)
    named = [f"{part.name}:{part.split}" for part in shots]
    source = {"encoder": by, "weights_sha256": digest, "support": ", ".join(named)}
    boxes = (row for part in shots for row in support_boxes(part, contract))
    return pcb_rescorer(encoder, boxes, classes, source=source, **options)


def support_boxes(
    dataset: Dataset, contract: Contract
) -> Iterator[tuple[Pixels, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Frames with the boxes of those classes that the detector has, by name and under its numbers.

    Raises:
        InputError: it has none of these classes, or a frame has no boxes.
    """
    known = contract.output.classes
    numbers = np.array([known.index(name) if name in known else -1 for name in dataset.classes], np.int64)
    if (numbers < 0).all():
        raise InputError(
            f"'{dataset.name}' holds {', '.join(dataset.classes)}, the detector knows {', '.join(known)}",
            "Name the shots that the detector was fine-tuned on",
        )
    for sample in dataset:
        truth = sample.boxes()
        if truth is None:
            raise InputError(f"'{sample.frame_path}' has no true boxes", "Name shots with boxes")
        classes = numbers[truth.classes]
        image = eight_bit(sample.frame(), contract.input, f"'{sample.frame_path}'")
        yield image, truth.boxes[classes >= 0], classes[classes >= 0]
