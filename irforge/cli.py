"""The `irforge` command: one verb a stage. A verb's code is imported when that verb is asked for, and not before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

import irforge
from irforge.errors import run_app

# verb: (module, function, what it does in one line of the overview)
VERBS = {
    "data": ("irforge.data", "data", "List, describe and check datasets."),
    "fit": ("irforge.train.fit", "fit", "Train a detector by a recipe."),
    "surgery": ("irforge.train.surgery", "surgery", "Give trained weights predictors for other classes."),
    "shots": ("irforge.train.data.fewshot", "fewshot", "Draw K boxes of each class for few-shot training."),
    "gcoco": ("irforge.train.data.gcoco", "gcoco", "Turn COCO into gray frames without the classes to come."),
    "classical": ("irforge.train.classical", "classical", "Write a detector that needs no training."),
    "evaluate": ("irforge.train.evaluate", "evaluate", "Measure trained weights on a dataset."),
    "export": ("irforge.export.to_onnx", "export", "Turn trained weights into an ONNX deployable."),
    "adopt": ("irforge.export.adopt.adopt", "adopt", "Write a contract and the decode into another's ONNX file."),
    "rescore": ("irforge.export.rescore", "rescore", "Have an image encoder judge a detector's boxes again."),
    "calibrate": ("irforge.calib.collect", "collect", "Collect a model's activation ranges on frames."),
    "sensitivity": ("irforge.calib.sensitivity", "sensitivity", "Measure what INT8 costs, place by place."),
    "quantize": ("irforge.calib.quantize", "quantize", "Make an INT8 deployable from ranges."),
    "half": ("irforge.calib.half", "half", "Make an FP16 deployable."),
    "fuse": ("irforge.export.fuse", "fuse", "Write patterns as custom operators for plugins."),
    "unroll": ("irforge.export.unroll", "unroll", "Spell a graph out for compilers, right before building."),
    "build": ("irforge.runtime.build", "build", "Compile an engine, GPU or not, and prove its precision."),
    "run": ("irforge.runtime.run", "run", "Detect in a folder or a video."),
    "batch": ("irforge.runtime.batch", "batch", "Detect in an archive of videos, and resume."),
    "live": ("irforge.runtime.live.watch", "live", "Watch a detector at work on a web page."),
    "bench": ("irforge.bench", "bench", "Measure what each precision costs and gains."),
    "compare": ("irforge.compare", "compare", "Set different detectors side by side on the same frames."),
    "report": ("irforge.runtime.report.show", "report", "Show a measurement as a page and a table."),
    "package": ("irforge.runtime.package.pack", "package", "Write what Triton or DeepStream needs, or a folder."),
    "doctor": ("irforge.doctor", "doctor", "Say what this machine can do and what to install."),
}


def application(wanted: str | None) -> typer.Typer:
    """All verbs with their line of the overview; only the one that is wanted is imported and has its options."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(_irforge)
    for verb, (module, function, summary) in VERBS.items():
        command: Callable[..., Any] = getattr(import_module(module), function) if verb == wanted else _another_verb
        app.command(verb, help=None if verb == wanted else summary)(command)
    return app


def main() -> None:
    """Run the `irforge` command on this process's arguments."""
    wanted = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    run_app(lambda: application(wanted))


def _another_verb() -> None:
    pass


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"irforge {irforge.__version__}")
        raise typer.Exit


def _irforge(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """From PyTorch training to a measured, deployable TensorRT engine, for infrared detectors.

    Every verb takes --help, and --debug for a traceback where something fails.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


if __name__ == "__main__":
    main()
