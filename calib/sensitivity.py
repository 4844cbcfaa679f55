"""Where INT8 costs accuracy: `python calib/sensitivity.py MODEL.onnx FRAMES --ranges RANGES.json
-o COSTS.json`, the same as `irforge sensitivity`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    from irforge.calib.costs import Cost, Costs
    from irforge.calib.distance import Answer

Arrays = dict[str, "npt.NDArray[Any]"]


def measure_sensitivity(
    model_path: Path,
    source: str,
    ranges_path: Path,
    *,
    method: str | None = None,
    limit: int | None = 8,
    data_root: Path | None = None,
    threads: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Costs:
    """Quantise one place of a model after the other, alone, and see how far the answers move.

    A place is the convolutions that read one tensor, with the tensors around them: they share its Q/DQ pair. All else
    stays in FP32, so that only INT8 is judged. No truth is needed: the FP32 model is the reference.

    Args:
        source: a folder, a list of files, or `NAME:SPLIT`; frames with targets, or nothing can move.
        method: which of the recorded thresholds to take; None for the one chosen when the ranges were collected.
        limit: at most so many frames, spread evenly over the set.
        threads: of ONNX Runtime inside one operator.
        on_start: told the number of steps before the first.

    Raises:
        UsageError: no such method or dataset.
        InputError: frames missing, damaged, or not as the contract asks.
        ArtifactError: no contract, or not an FP32 model.
        CalibrationError: stale ranges, or nothing to quantise.
    """
    from irforge.artifact import load_model, read_contract
    from irforge.calib.costs import Costs, PlaceCost
    from irforge.calib.distance import distance, read_answer
    from irforge.calib.floats import raise_opset, require_float_model
    from irforge.calib.frames import choose, open_frames
    from irforge.calib.histogram import check_method
    from irforge.calib.placement import TENSORRT, place
    from irforge.calib.qdq import insert_qdq
    from irforge.calib.ranges import check_fresh, load_ranges
    from irforge.errors import CalibrationError
    from irforge.frames import prepare
    from irforge.graph import Graph, macs

    model = load_model(model_path)
    contract = read_contract(model)
    require_float_model(model, contract, model_path)
    ranges = load_ranges(ranges_path)
    check_fresh(ranges, ranges_path, model, contract)
    method = method or ranges.method
    check_method(method)
    raise_opset(model, model_path)
    sizes = {contract.input.name: (1, contract.input.channels, *contract.input.size)}
    everything = place(Graph(model), ranges.tensors, method, TENSORRT, sizes=sizes)
    if not everything.convolutions:
        raise CalibrationError(f"nothing in '{model_path}' can be quantised")

    chosen = choose(open_frames(source, data_root), limit)
    readers = {node.output[0]: node for node in model.graph.node}
    places: dict[str, list[str]] = {}
    for name in everything.convolutions:
        places.setdefault(readers[name].input[0], []).append(name)
    if on_start:
        on_start(len(places) + 1)
    prepared = [prepare(sample.frame(), contract.input, f"'{sample.frame_path}'") for sample in chosen]
    frames = [tensor for tensor, _ in prepared]

    def answers(convolutions: list[str]) -> list[Answer]:
        graph = Graph(type(model).FromString(model.SerializeToString()))
        graph.tidy()
        others = set(everything.convolutions) - set(convolutions)
        apart = dict.fromkeys(others, "not its turn")
        placement = place(graph, ranges.tensors, method, TENSORRT, apart=apart, sizes=sizes)
        insert_qdq(graph, placement.convolutions, placement.points, "axis")
        if on_step and convolutions:
            on_step()
        found = run_frames(graph.model, frames, threads)
        return [read_answer(outputs, contract, where) for outputs, (_, where) in zip(found, prepared, strict=True)]

    reference = answers([])

    def cost(convolutions: list[str]) -> Cost:
        return distance(reference, answers(convolutions), contract.output.score_threshold)

    counts = macs(model, sizes)
    total = sum(counts.values())
    return Costs(
        model=model_path.name,
        ranges_key=ranges.key,
        method=method,
        source=source,
        frames=len(frames),
        together=cost(everything.convolutions),
        places=[
            PlaceCost(
                nodes=names,
                weights=[readers[name].input[1] for name in names],
                share=sum(counts[name] for name in names) / total,
                **cost(names).model_dump(),
            )
            for names in places.values()
        ],
    )


def run_frames(model: onnx.ModelProto, frames: list[npt.NDArray[Any]], threads: int | None) -> list[Arrays]:
    """A model's outputs by name for each frame, on ONNX Runtime's CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Q/DQ pairs are to round as written, not to be fused into kernels that round elsewhere.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    return [dict(zip(outputs, session.run(outputs, {name: frame}), strict=True)) for frame in frames]


def sensitivity(
    model: Annotated[Path, typer.Argument(help="An FP32 deployable (.onnx).")],
    frames: Annotated[str, typer.Argument(help="Frames with targets: a folder, a list of files, or NAME:SPLIT.")],
    ranges: Annotated[Path, typer.Option(help="RANGES.json of this model, from 'irforge calibrate'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .json file to write.")],
    method: Annotated[str, typer.Option(help="minmax, percentile, entropy or mse; default: as collected.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many frames, spread evenly over the set.")] = 8,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; default IRFORGE_DATA.")] = None,
) -> None:
    """Measure what INT8 costs place by place, for `irforge quantize --sensitivity`."""
    from rich.console import Console
    from rich.progress import Progress

    from irforge.calib.costs import save_costs
    from irforge.calib.tables import print_costs

    if output.suffix != ".json":
        raise UsageError(f"'{output}' does not end in .json")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("quantising place by place", total=None)
        costs = measure_sensitivity(
            model,
            frames,
            ranges,
            method=method or None,
            limit=limit,
            data_root=data_root,
            on_start=lambda count: bars.update(task, total=count),
            on_step=lambda: bars.advance(task),
        )
    save_costs(output, costs)
    print_costs(costs, output)


if __name__ == "__main__":
    run_command(sensitivity)
