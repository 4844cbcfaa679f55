"""COSTS.json: what INT8 in one place of a model alone does to its answers, and which places to leave in FP16 for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from irforge.calib.ranges import Ranges, read_record
from irforge.errors import CalibrationError
from irforge.files import write_json

SCHEMA_VERSION = "2.0"
INT8_SHARE = 0.9
"""Of the MACs, where nothing was searched for."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Event(_Part):
    """A target that is no longer found, or an alarm that was not given before: the box that was or is found there, in
    frame pixels, with its score."""

    kind: Literal["lost", "alarm"]
    frame: str
    box: tuple[float, float, float, float]
    score: float


class Cost(_Part):
    """How far answers move: `difference` is a frame's sum, mean over frames; `crossed` counts what crosses the
    contract's threshold in 100 frames, `lost` and `alarms` the targets lost and the false detections gained in 100
    frames (`irforge.calib.losses`), of which `events` shows the first.

    Of masks, `difference` is the sum of |Δp| over all probabilities but those of padding. Of boxes, paired as
    `irforge.runtime.pairing` does it, the sum of |Δscore| + (1 - IoU) * the lower score over all pairs, and of the
    scores of those that have no partner.
    """

    difference: float = Field(ge=0)
    crossed: float = Field(ge=0)
    lost: float = Field(default=0, ge=0)
    alarms: float = Field(default=0, ge=0)
    events: list[Event] = []

    @property
    def loss(self) -> float:
        """Targets lost and alarms gained, in 100 frames."""
        return self.lost + self.alarms


class PlaceCost(Cost):
    """The cost of the convolutions that read one tensor, whose INT8 form they share: their outputs' and their weights'
    names, and their share (0..1) of all MACs."""

    nodes: list[str] = Field(min_length=1)
    weights: list[str] = Field(min_length=1)
    share: float = Field(ge=0, le=1)


class Search(_Part):
    """The fewest places to leave in FP16 that were found for a given loss: see `irforge.calib.search`.

    max_loss, max_difference: what was allowed of `Cost.loss` and `Cost.difference`; None for anything.
    kept: the convolutions to leave in FP16. share: of all MACs that are left so. cost: of INT8 in all other places.
    trials: how many sets of places were tried.
    """

    max_loss: float | None
    max_difference: float | None
    kept: list[str]
    share: float
    cost: Cost
    trials: int


class Costs(_Part):
    """See the module's first line. `together` is the cost of INT8 in all places at once; `truth` is what was known of
    the targets: masks, boxes or nothing."""

    schema_version: str = SCHEMA_VERSION
    model: str
    ranges_key: str
    method: str
    source: str
    frames: int = Field(gt=0)
    truth: str = "none"
    together: Cost
    places: list[PlaceCost]
    search: Search | None = None

    def of(self, node: str) -> dict[str, float]:
        """The figures of the place that a convolution belongs to; empty if it belongs to none."""
        place = next((place for place in self.places if node in place.nodes), None)
        return place.model_dump(include={"difference", "crossed", "lost", "alarms"}) if place else {}

    def left(self, int8_share: float | None) -> list[str]:
        """The convolutions to leave in FP16: what the search found, or `costliest` for a given share of the MACs."""
        if self.search and int8_share is None:
            return self.search.kept
        return costliest(self.places, INT8_SHARE if int8_share is None else int8_share)


def costliest(places: Sequence[PlaceCost], int8_share: float) -> list[str]:
    """The convolutions to leave in FP16: most cost a MAC first, while `int8_share` of all MACs stays in INT8.

    Only those are left that cost more than their share of the MACs would let expect: the others pay for their speed.
    """
    total = sum(place.share for place in places)
    mean = sum(place.difference for place in places) / max(total, 1e-12)
    room = total - int8_share + 1e-9

    def rate(place: PlaceCost) -> float:
        return place.difference / max(place.share, 1e-12)

    left: list[str] = []
    for place in sorted(places, key=rate, reverse=True):
        if rate(place) > mean and place.share <= room:
            left += place.nodes
            room -= place.share
    return left


def save_costs(path: str | os.PathLike[str], costs: Costs) -> None:
    write_json(path, costs.model_dump())


def load_costs(path: str | os.PathLike[str], ranges: Ranges, method: str) -> Costs:
    """Read COSTS.json that was measured with these very ranges.

    Raises:
        CalibrationError: missing, unreadable, of an unknown schema, or measured with other ranges or another method.
    """
    costs = read_record(path, Costs, "costs", SCHEMA_VERSION, "irforge sensitivity")
    if (costs.ranges_key, costs.method) != (ranges.key, method):
        other = costs.model != ranges.model
        raise CalibrationError(
            f"'{path}' is of {costs.model}, not {ranges.model}"
            if other
            else f"stale costs: '{path}' was measured with other ranges",
            f"Measure it again: irforge sensitivity {ranges.model} {costs.source} --ranges RANGES.json -o COSTS.json",
        )
    return costs
