"""A failure is one line with what, where and how to mend it, and an exit code by kind."""

import subprocess
import sys

import pytest

from irforge.errors import (
    ArtifactError,
    CheckFailed,
    EnvironmentFault,
    InputError,
    IrforgeError,
    UsageError,
    as_irforge_error,
)

PROGRAM = """
import os, signal, sys
from irforge.errors import *
def command(kind: str) -> None:
    if kind == "input":
        raise InputError("'a.png' is\\nempty", "Remove it")
    if kind == "full":
        open("/dev/full", "w").write("x" * 100000)
    if kind == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if kind == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    if kind == "defect":
        raise KeyError("ours")
run_command(command)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("argument", "code", "line"),
    [
        ("fine", 0, ""),
        ("input", 3, "irforge: 'a.png' is empty. Remove it\n"),
        ("interrupt", 130, "irforge: interrupted; nothing half-written was left\n"),
        ("terminate", 130, "irforge: interrupted; nothing half-written was left\n"),
    ],
)
def test_a_failure_is_one_line_and_its_exit_code(argument: str, code: int, line: str) -> None:
    done = run(argument)
    assert (done.returncode, done.stderr) == (code, line)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_the_environments_fault() -> None:
    done = run("full")
    assert done.returncode == EnvironmentFault.exit_code
    assert done.stderr.startswith("irforge: No space left on device") and done.stderr.count("\n") == 1


def test_a_missing_argument_is_one_line() -> None:
    done = run()
    assert done.returncode == UsageError.exit_code
    assert "kind" in done.stderr.lower() and done.stderr.count("\n") == 1


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    done = run("defect")
    assert done.returncode == 1 and "KeyError: 'ours'" in done.stderr


def test_debug_shows_the_traceback_of_a_users_error() -> None:
    done = run("input", "--debug")
    assert done.returncode == 3 and "Traceback" in done.stderr and done.stderr.endswith("Remove it\n")


def test_exit_codes_tell_the_kinds_apart() -> None:
    kinds = (IrforgeError, UsageError, InputError, ArtifactError, EnvironmentFault, CheckFailed)
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4, 5, 6]


def test_only_what_a_user_can_cause_becomes_a_line() -> None:
    assert as_irforge_error(PermissionError(13, "Permission denied", "/x")) is not None
    assert as_irforge_error(ValueError("ours")) is None
    assert as_irforge_error(OSError("no number")) is None
