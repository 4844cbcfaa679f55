"""Every failure a user can cause ends in one of these: one line that says what, where and how to mend it."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

INTERRUPTED = 130
_INTERRUPTED_LINE = "interrupted; nothing half-written was left"


class IrforgeError(Exception):
    """Base of all errors that are reported as one line.

    Args:
        what: what is wrong, with the offending value and where it stands (file, field, argument).
        remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what.strip()
        self.remedy = remedy.strip()
        super().__init__(self.line)

    @property
    def line(self) -> str:
        """The whole message on one line."""
        message = f"{self.what.rstrip('.')}. {self.remedy}" if self.remedy else self.what
        return " ".join(message.split())


class UsageError(IrforgeError):
    """The command was asked for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(IrforgeError):
    """Frames, masks, lists or videos that cannot be used as they are."""

    exit_code = 3


class ArtifactError(IrforgeError):
    """A checkpoint, ONNX file, range file, engine or sidecar that cannot be used as it is."""

    exit_code = 4


class EnvironmentFault(IrforgeError):
    """This machine lacks something: a package, a device, disk space, a permission."""

    exit_code = 5


class CheckFailed(IrforgeError):
    """Everything ran, and the result is not good enough: parity, precision proof, compile gate."""

    exit_code = 6


class ExportError(ArtifactError):
    """A detector that cannot be exported as asked."""


class CalibrationError(ArtifactError):
    """Ranges that cannot be collected or do not belong to the model at hand."""


class BuildError(ArtifactError):
    """A graph that a TensorRT parser or compiler refused."""


def as_irforge_error(error: BaseException) -> IrforgeError | None:
    """The one-line form of an exception a user can cause outside our own checks, or None for a defect of ours."""
    if isinstance(error, IrforgeError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        where = f" '{error.filename}'" if error.filename else ""
        remedies = {
            28: "Free some space on that file system, or write elsewhere with -o",
            30: "That file system is read-only: write elsewhere with -o",
            13: "Check the permissions, or write elsewhere with -o",
            122: "The disk quota is used up: free some space, or write elsewhere with -o",
        }
        return EnvironmentFault(f"{os.strerror(error.errno)}:{where}", remedies.get(error.errno, ""))
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] != "irforge":
        return EnvironmentFault(f"no Python package '{error.name}' here", "'irforge doctor' says how to install it")
    return None


def run_command(command: Callable[..., Any]) -> None:
    """Run a typer command function as a program: one line and an exit code on failure, a traceback with `--debug`.

    Errors end with their class's exit code, Ctrl-C (and SIGTERM) with 130 after temporary files are gone.
    """
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    run_app(lambda: app)


def run_app(make: Callable[[], Any]) -> None:
    """`run_command` for the typer application that `make` returns; its imports count as part of the command."""
    import typer

    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    if not debug:
        # Libraries warn their callers; those who only type a command cannot mend it.
        warnings.simplefilter("ignore")
    interruptions: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interruptions.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        code = make()(args=arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _stop(_INTERRUPTED_LINE, INTERRUPTED, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if interruptions:
            # It hit code that turns every exception into one of its own: an import under way, say.
            _stop(_INTERRUPTED_LINE, INTERRUPTED, debug)
        # typer's own complaints about arguments: click's classes up to 0.2x, a private copy of them since.
        if hasattr(error, "format_message"):
            _stop(error.format_message(), UsageError.exit_code, debug)
        known = as_irforge_error(error)
        if known is None:
            raise
        _stop(known.line, known.exit_code, debug)
    if code == INTERRUPTED:
        _stop(_INTERRUPTED_LINE, INTERRUPTED, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(line: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"irforge: {line}", file=sys.stderr)
    sys.exit(code)
