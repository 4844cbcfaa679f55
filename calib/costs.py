"""COSTS.json: what INT8 in one place of a model alone does to its answers, and which places to leave in FP16 for it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from irforge.calib.ranges import Ranges, read_record
from irforge.errors import CalibrationError
from irforge.files import write_json

SCHEMA_VERSION = "1.0"


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Cost(_Part):
    """How far answers move: `difference` is a frame's sum, mean over frames; `crossed` counts what crosses the
    contract's threshold in 100 frames.

    Of masks, the sum of |Δp| over all probabilities. Of boxes, paired as `irforge.runtime.pairing` does it, the sum of
    |Δscore| + (1 - IoU) * the lower score over all pairs, and of the scores of those that have no partner.
    """

    difference: float = Field(ge=0)
    crossed: float = Field(ge=0)


class PlaceCost(Cost):
    """The cost of the convolutions that read one tensor, whose INT8 form they share: their outputs' and their weights'
    names, and their share (0..1) of all MACs."""

    nodes: list[str] = Field(min_length=1)
    weights: list[str] = Field(min_length=1)
    share: float = Field(ge=0, le=1)


class Costs(_Part):
    """See the module's first line. `together` is the cost of INT8 in all places at once."""

    schema_version: str = SCHEMA_VERSION
    model: str
    ranges_key: str
    method: str
    source: str
    frames: int = Field(gt=0)
    together: Cost
    places: list[PlaceCost]

    def of(self, node: str) -> dict[str, float]:
        """`difference` and `crossed` of the place that a convolution belongs to; empty if it belongs to none."""
        place = next((place for place in self.places if node in place.nodes), None)
        return {"difference": place.difference, "crossed": place.crossed} if place else {}


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
        raise CalibrationError(
            f"stale costs: '{path}' was measured with other ranges",
            f"Measure it again: irforge sensitivity {ranges.model} {costs.source} --ranges RANGES.json -o COSTS.json",
        )
    return costs
