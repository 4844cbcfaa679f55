"""Mixed precision: the fewest places to leave in FP16 so that INT8 in all others loses no more than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irforge.calib.costs import Cost, PlaceCost, Search

Judge = Callable[[Sequence[PlaceCost]], Cost]
"""What INT8 in all of these places at once costs."""


def fewest_in_half(
    places: Sequence[PlaceCost], judge: Judge, *, max_loss: float | None, max_difference: float | None
) -> Search:
    """Leave the costliest places in FP16, as few as the limits allow.

    What a place costs alone only says in which order to look: costs do not add up. So each set is tried as a whole:
    the shortest run of the costliest places that keeps the limits, found by bisection; and then, from its cheapest
    place on, each is put back into INT8 if the limits hold without it as well.

    Args:
        places: with their costs, each alone.
        max_loss: targets lost and alarms gained in 100 frames, at most.
        max_difference: of `Cost.difference`, at most.
    """
    ranked = sorted(places, key=lambda place: (-place.difference, place.nodes))
    trials = 0

    def tried(kept: Sequence[PlaceCost]) -> Cost | None:
        """The cost of leaving these in FP16; None if it is more than is allowed."""
        nonlocal trials
        trials += 1
        cost = judge([place for place in places if place not in kept])
        within = (max_loss is None or cost.loss <= max_loss) and (
            max_difference is None or cost.difference <= max_difference
        )
        return cost if within else None

    # Nothing in INT8 costs nothing: the whole list always keeps the limits, none of it perhaps.
    kept, best = ranked, Cost(difference=0, crossed=0)
    too_short, enough = -1, len(ranked)
    while enough - too_short > 1:
        length = max(0, (too_short + enough) // 2)
        cost = tried(ranked[:length])
        if cost is None:
            too_short = length
        else:
            kept, best, enough = ranked[:length], cost, length
    # Without the last of them it was tried already.
    for place in reversed(kept[:-1]):
        fewer = [other for other in kept if other is not place]
        cost = tried(fewer)
        if cost is not None:
            kept, best = fewer, cost
    return Search(
        max_loss=max_loss,
        max_difference=max_difference,
        kept=[name for place in kept for name in place.nodes],
        share=sum(place.share for place in kept),
        cost=best,
        trials=trials,
    )
