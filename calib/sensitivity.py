"""Where INT8 costs accuracy: `python calib/sensitivity.py MODEL.onnx FRAMES --ranges RANGES.json
-o COSTS.json`, the same as `irforge sensitivity`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting

if TYPE_CHECKING:
    from irforge.calib.costs import Costs

LIMIT = 8
"""Frames, where neither a limit nor a loss asks for more."""


def measure_sensitivity(
    model_path: Path,
    source: str,
    ranges_path: Path,
    *,
    method: str | None = None,
    limit: int | None = None,
    max_loss: float | None = None,
    max_difference: float | None = None,
    data_root: Path | None = None,
    threads: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_step: Callable[[], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_costs: Callable[[Costs], None] | None = None,
) -> Costs:
    """Quantise one place of a model after the other, alone, and see what becomes of its answers.

    A place is the convolutions that read one tensor, with the tensors around them: they share its Q/DQ pair. All else
    stays in FP32, so that only INT8 is judged, and the FP32 model is the reference: a target that it does not find
    cannot be lost. Without truth every detection of it counts as a target.

    With one of the limits, the fewest places to leave in FP16 are searched for then: `irforge.calib.search`.

    Args:
        source: a folder, a list of files, or `NAME:SPLIT`; frames with targets, or nothing can be lost.
        method: which of the recorded thresholds to take; None for the one chosen when the ranges were collected.
        limit: at most so many frames, spread evenly over the set. None for `LIMIT`, or for as many as it takes until
            one event is within `max_loss`.
        max_loss: targets lost and alarms gained in 100 frames, at most.
        max_difference: of `Cost.difference`, at most.
        threads: of ONNX Runtime inside one operator.
        on_start: told the number of places before the first.
        on_note: told, before the first place, that the frames are too few for `max_loss` to differ from 0.
        on_costs: given the costs of all places, before the search.

    Raises:
        UsageError: no such method or dataset.
        InputError: frames missing, damaged, or not as the contract asks.
        ArtifactError: no contract, or not an FP32 model.
        CalibrationError: stale ranges, or nothing to quantise.
    """
    from irforge.artifact import load_model, read_contract
    from irforge.calib.costs import Costs, PlaceCost
    from irforge.calib.floats import raise_opset, require_float_model
    from irforge.calib.frames import choose, open_frames
    from irforge.calib.histogram import check_method
    from irforge.calib.losses import frames_for, too_few
    from irforge.calib.ranges import check_fresh, load_ranges
    from irforge.calib.search import fewest_in_half
    from irforge.calib.trials import Place, Trials
    from irforge.errors import CalibrationError

    model = load_model(model_path)
    contract = read_contract(model, model_path)
    require_float_model(model, contract, model_path)
    ranges = load_ranges(ranges_path)
    check_fresh(ranges, ranges_path, model, contract, model_path)
    method = method or ranges.method
    check_method(method)
    raise_opset(model, model_path)
    if limit is None:
        limit = max(LIMIT, frames_for(max_loss)) if max_loss else LIMIT
    dataset = choose(open_frames(source, data_root), limit)
    trials = Trials(model, contract, ranges.tensors, method, dataset, threads)
    if not trials.places:
        raise CalibrationError(f"nothing in '{model_path}' can be quantised")
    note = too_few(max_loss, len(trials)) if max_loss else ""
    if note and on_note:
        on_note(note)
    if on_start:
        on_start(len(trials.places))

    def alone(place: Place) -> PlaceCost:
        cost = trials.alone(place)
        if on_step:
            on_step()
        return cost

    costs = Costs(
        model=model_path.name,
        ranges_key=ranges.key,
        method=method,
        source=source,
        frames=len(trials),
        truth=trials.truth,
        together=trials.cost(trials.places),
        places=[alone(place) for place in trials.places],
    )
    if on_costs:
        on_costs(costs)
    if max_loss is None and max_difference is None:
        return costs
    found = fewest_in_half(costs.places, trials.together, max_loss=max_loss, max_difference=max_difference)
    return costs.model_copy(update={"search": found})


def sensitivity(
    model: Annotated[Path, typer.Argument(help="An FP32 deployable (.onnx).")],
    frames: Annotated[str, typer.Argument(help="Frames with targets: a folder, a list of files, or NAME:SPLIT.")],
    ranges: Annotated[Path, typer.Option(help="RANGES.json of this model, from 'irforge calibrate'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .json file to write.")],
    method: Annotated[str, typer.Option(help="minmax, percentile, entropy or mse; default: as collected.")] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many frames, spread evenly over the set; default: 8, and with --max-loss as many more as"
            " it takes until one target in them is at most N in 100.",
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Then search for the fewest convolutions to leave in FP16 so that at most N targets are lost and"
            " alarms gained in 100 frames. Below 100 / N frames that means none at all: of 8 frames, one target is 12.5"
            " in 100.",
        ),
    ] = None,
    max_difference: Annotated[
        float | None, typer.Option(min=0, metavar="D", help="The same, for a difference of at most D; or for both.")
    ] = None,
    crops: Annotated[
        Path | None, typer.Option(metavar="PAGE", help="Write a page (.html) with crops of what INT8 loses and adds.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; default IRFORGE_DATA.")] = None,
) -> None:
    """Measure what INT8 costs place by place: targets lost and alarms gained; for `irforge quantize --sensitivity`."""
    from rich.console import Console
    from rich.progress import Progress

    from irforge.calib.costs import save_costs
    from irforge.calib.tables import print_costs, print_search
    from irforge.datasets import dataset_paths

    if output.suffix != ".json":
        raise UsageError(f"'{output}' does not end in .json")
    if crops is not None and crops.suffix != ".html":
        raise UsageError(f"'{crops}' does not end in .html")
    refuse_overwriting([output, crops], [model, ranges, *dataset_paths(frames, data_root)])
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("quantising place by place", total=None)
        costs = measure_sensitivity(
            model,
            frames,
            ranges,
            method=method or None,
            limit=limit,
            max_loss=max_loss,
            max_difference=max_difference,
            data_root=data_root,
            on_start=lambda count: bars.update(task, total=count),
            on_step=lambda: bars.advance(task),
            on_note=lambda note: typer.echo(f"irforge: {note}", err=True),
            on_costs=lambda measured: save_costs(output, measured),
        )
    if costs.search:
        save_costs(output, costs)
    print_costs(costs, output)
    if costs.search:
        print_search(costs, costs.search)
    if crops is not None:
        from irforge.calib.crops import write_crops

        write_crops(crops, costs, data_root)


if __name__ == "__main__":
    run_command(sensitivity)
