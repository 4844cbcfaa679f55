"""Is the mixed-precision search worth it? `python benchmarks/sensitivity.py MODEL.onnx --ranges R.json --list mshnet`.

Three ways to choose what stays in FP16 stand side by side: nothing; a list made by hand, as experience with the network
says (`--list mshnet`, `--list itd`, or your own patterns by `--keep`); and `irforge sensitivity`'s search, which gets
what the list loses on the search frames as its limits. All are judged on frames that none of them saw: targets lost,
alarms gained and how far answers move, against FP32.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    from irforge.calib.costs import Cost
    from irforge.calib.trials import Place, Trials

LISTS = {
    # First and last stage, all gates, and everything that ends in a mask.
    "mshnet": ("*encoder_0*", "*decoder_0*", "*.sa.*", "*.ca.*", "*output_*", "*final*"),
    # All but the filters of the first two stages and the head's 3x3: stem, gates, the deep stage, the top-down path.
    "itd": ("*stem*", "*transitions*", "*gates*", "*squeeze*", "*excite*", "*stages.2*", "*top_down*", "*heat.2*"),
}


def kept_by(places: list[Place], patterns: tuple[str, ...]) -> set[Place]:
    """The places whose every convolution a pattern matches."""
    return {
        place
        for place in places
        if all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in place.weights)
    }


def row(places: list[Place], kept: set[Place], cost: Cost) -> dict[str, Any]:
    """The figures of one choice."""
    return {
        "places_in_fp16": len(kept),
        "convolutions_in_fp16": sum(len(place.nodes) for place in kept),
        "share_of_macs_in_fp16": sum(place.share for place in kept),
        "share_of_macs_in_int8": sum(place.share for place in places if place not in kept),
        **cost.model_dump(exclude={"events"}),
    }


def main(
    model: Annotated[Path, typer.Argument(help="An FP32 deployable (.onnx).")],
    ranges: Annotated[Path, typer.Option(help="RANGES.json of 'irforge calibrate'.")],
    hand: Annotated[str, typer.Option("--list", metavar="NAME", help=f"A list made by hand: {', '.join(LISTS)}.")] = "",
    keep: Annotated[list[str] | None, typer.Option(help="Or patterns of weight names, repeatable.")] = None,
    search: Annotated[str, typer.Option(help="Frames to search on.")] = "NUDT-SIRST:train",
    test: Annotated[str, typer.Option(help="Frames to judge on.")] = "NUDT-SIRST:test",
    search_frames: Annotated[int, typer.Option(min=1, help="At most so many.")] = 96,
    test_frames: Annotated[int, typer.Option(min=1, help="At most so many.")] = 10_000,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the figures as JSON.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Nothing, a list made by hand, and a search: what stays in FP16, and what is lost."""
    from irforge.artifact import load_model, read_contract
    from irforge.calib.floats import raise_opset
    from irforge.calib.frames import choose, open_frames
    from irforge.calib.ranges import check_fresh, load_ranges
    from irforge.calib.search import fewest_in_half
    from irforge.calib.trials import Trials
    from irforge.files import write_json

    if hand and hand not in LISTS:
        raise UsageError(f"there is no list '{hand}'", f"Lists: {', '.join(LISTS)}")
    patterns = (*LISTS.get(hand, ()), *(keep or ()))
    if not patterns:
        raise UsageError("nothing to compare with", "Give --list or --keep")
    graph = load_model(model)
    contract = read_contract(graph)
    measured = load_ranges(ranges)
    check_fresh(measured, ranges, graph, contract)
    raise_opset(graph, model)

    def on(source: str, limit: int) -> Trials:
        dataset = choose(open_frames(source, data_root), limit)
        return Trials(graph, contract, measured.tensors, measured.method, dataset, threads)

    start = perf_counter()
    trials = on(search, search_frames)
    by_hand = kept_by(trials.places, patterns)
    limit = trials.cost([place for place in trials.places if place not in by_hand])
    say(f"{search}, n = {len(trials)}: by hand {len(by_hand)} places, {words(limit)}")
    alone = [trials.alone(place) for place in trials.places]
    say(f"{len(alone)} places alone: {(perf_counter() - start) / 60:.1f} min")
    found = fewest_in_half(alone, trials.together, max_loss=limit.loss, max_difference=limit.difference)
    searched = {place for place in trials.places if set(place.nodes) <= set(found.kept)}
    say(f"search: {len(searched)} places, {words(found.cost)}, {found.trials} sets tried")
    for place in sorted(searched, key=lambda place: place.nodes):
        say(f"  {', '.join(place.weights)}")
    judged = on(test, test_frames)
    choices: dict[str, set[Place]] = {"INT8 everywhere": set(), "by hand": by_hand, "searched": searched}
    rows = {}
    for name, kept in choices.items():
        cost = judged.cost([place for place in judged.places if place not in kept])
        rows[name] = row(judged.places, kept, cost)
        say(f"{test}, n = {len(judged)}, {name}: {len(kept)} places in FP16, {words(cost)}")
    if out is not None:
        figures = {
            "model": model.name,
            "search": {"data": search, "frames": len(trials), "trials": found.trials},
            "test": {"data": test, "frames": len(judged)},
            "minutes": (perf_counter() - start) / 60,
            "kept_by_search": [name for place in searched for name in place.weights],
            "allowed": limit.model_dump(exclude={"events"}),
            "choices": rows,
        }
        write_json(out, figures)


def words(cost: Cost) -> str:
    """One line of what INT8 costs."""
    return f"lost {cost.lost:.2f}, alarms {cost.alarms:.2f} in 100 frames, difference {cost.difference:.4f}"


def say(text: str) -> None:
    """A line at once, also into a file."""
    typer.echo(text)
    sys.stdout.flush()


if __name__ == "__main__":
    run_command(main)
