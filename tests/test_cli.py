"""Promises of the `irforge` command."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import irforge
from irforge.cli import VERBS

HEAVY = ("numpy", "torch", "onnx", "onnxruntime", "cv2", "pydantic", "rich", "tensorrt", "scipy")
VERBS_THAT_STAY = "fit evaluate export calibrate quantize half fuse build run bench report doctor"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "irforge.cli", *arguments], capture_output=True, text=True)


def test_the_verbs_that_others_script_against_are_there() -> None:
    assert set(VERBS_THAT_STAY.split()) <= set(VERBS)
    shown = command("--help").stdout
    for verb, (_, _, summary) in VERBS.items():
        assert f"  {verb:<{max(map(len, VERBS))}}  {summary}\n" in shown


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_while_a_verb_is_imported_is_one_line(tmp_path: Path, number: str) -> None:
    (tmp_path / "slow.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\n")
    code = "import sys; from irforge import cli; cli.VERBS['run'] = ('slow', 'run', ''); sys.argv[1:] = ['run']; "
    code += "cli.main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (130, "irforge: interrupted; nothing half-written was left\n")


def test_help_imports_nothing_heavy_and_starts_at_once() -> None:
    code = """
import sys
from irforge.cli import main
sys.argv = ["irforge", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
print("LOADED", *sys.modules)
"""
    before = os.times()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    after = os.times()
    # Processor time: what else runs on this machine is not to count.
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    loaded = shown.partition("LOADED")[2].split()
    assert "irforge.cli" in loaded
    assert not set(HEAVY) & set(loaded)
    assert seconds < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_that_of_its_script(verb: str) -> None:
    module, function, _ = VERBS[verb]
    first_line = inspect.getdoc(getattr(import_module(module), function)).splitlines()[0]
    shown = command(verb, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"Usage: python -m irforge.cli {verb} ")
    assert first_line in " ".join(shown.stdout.split())
    if module.split(".")[1] in ("train", "export", "calib", "runtime"):
        direct = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
        assert direct.stdout.partition("\n\n")[2] == shown.stdout.partition("\n\n")[2]


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    module = VERBS[verb][0]
    shown = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not set(HEAVY) & set(shown.stdout.split())


def test_no_arguments_show_the_help_and_an_unknown_verb_is_one_line() -> None:
    shown = command()
    assert shown.returncode == 0 and shown.stdout == command("--help").stdout
    unknown = command("trian")
    assert unknown.returncode == 2
    assert unknown.stdout == ""
    assert unknown.stderr.count("\n") == 1 and "No such command 'trian'" in unknown.stderr


def test_the_version_is_the_package_version() -> None:
    assert command("--version").stdout == f"irforge {irforge.__version__}\n"


def test_debug_shows_the_traceback_and_its_absence_one_line(tmp_path: Path, spot_model: Callable[..., Path]) -> None:
    arguments = ["run", str(spot_model()), str(tmp_path / "missing.mp4")]
    plain = command(*arguments)
    assert plain.returncode == 3
    assert plain.stderr.count("\n") == 1 and "missing.mp4" in plain.stderr
    for loud in (command(*arguments, "--debug"), command("--debug", *arguments)):
        assert loud.returncode == 3
        assert "Traceback" in loud.stderr and loud.stderr.endswith(plain.stderr)
