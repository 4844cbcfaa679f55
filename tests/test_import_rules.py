"""Who may import whom, and what a script may do at its top: the design's rules, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("train", "export", "calib", "runtime")

# Stage -> the stages that it may import; every one of them may import the core.
MAY_IMPORT = {
    "core": set(),
    "runtime": {"runtime"},
    "train": {"train"},
    "export": {"export", "runtime", "train"},
    "calib": {"calib", "runtime"},
}
# The front door composes stages, inside functions only.
COMPOSERS = {"irforge", "irforge.cli", "irforge.bench", "irforge.compare", "irforge.doctor", "irforge.demo"}

HEAVY = {
    *("numpy", "torch", "onnx", "onnxruntime", "onnxscript", "cv2", "tensorrt", "tensorrt_rtx"),
    *("pytorch_lightning", "lightning", "scipy", "matplotlib", "safetensors", "av", "cuda", "pycuda", "pydantic"),
    *("tensorrt_rtx_bindings", "yaml", "rich"),
}
TORCH = {"torch", "torchvision", "pytorch_lightning", "lightning"}
# Of our own modules, what a script's top may import: none of these imports anything heavy.
LIGHT = {"irforge", "irforge.errors", "irforge.files", "irforge.options", "irforge.runtime", "irforge.runtime.options"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "irforge" else ("irforge", *parts))
    return name.removesuffix(".__init__")


def sources() -> dict[str, Path]:
    # pathlib does not walk through the stage links of the package before Python 3.13, and must not.
    links = {ROOT / "irforge" / stage for stage in STAGES}
    core = [path for path in (ROOT / "irforge").glob("**/*.py") if not links & set(path.parents)]
    stages = [path for stage in STAGES for path in (ROOT / stage).glob("**/*.py")]
    return {module_name(path): path for path in sorted([*core, *stages])}


SOURCES = sources()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text())


def stage_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in STAGES else "core"


def imported(node: ast.AST) -> list[str]:
    """The modules that an import statement loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in SOURCES else node.module for a in node.names]
    return []


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(module: str, top_only: bool = False) -> Iterator[tuple[int, str]]:
    """(line, module) of each import that can run; what only type checkers see does not count."""
    pending: list[ast.AST] = [tree(module)]
    while pending:
        node = pending.pop()
        yield from ((node.lineno, name) for name in imported(node))
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if is_type_checking(node):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def is_script(module: str) -> bool:
    # Programs for child processes have a main part too, but no command line of their own.
    return any(isinstance(node, ast.If) and "run_command(" in ast.unparse(node) for node in tree(module).body)


SCRIPTS = [*(module for module in SOURCES if is_script(module)), "irforge.cli"]


def where(module: str, line: int) -> str:
    return f"{SOURCES[module].relative_to(ROOT)}:{line}"


def test_the_reader_sees_the_package() -> None:
    assert {"irforge", "irforge.cli", "irforge.contract", "irforge.runtime.run", "irforge.train.data"} <= set(SOURCES)
    assert "irforge.runtime.run" in SCRIPTS
    assert ("irforge.runtime.detector") in {name for _, name in imports("irforge.runtime.run")}
    assert ("irforge.runtime.detector") not in {name for _, name in imports("irforge.runtime.run", top_only=True)}


def test_stages_import_only_what_the_design_allows() -> None:
    faults = []
    for module in SOURCES:
        stage = stage_of(module)
        for line, name in imports(module):
            target = stage_of(name) if name.split(".")[0] == "irforge" else "core"
            composes = module in COMPOSERS and target != "core"
            if target != "core" and target not in MAY_IMPORT[stage] and not composes:
                faults.append(f"{where(module, line)} imports {name}")
    assert not faults, "\n".join(faults)


def test_the_front_door_composes_inside_functions_only() -> None:
    faults = [
        f"{where(module, line)} imports {name}"
        for module in COMPOSERS & set(SOURCES)
        for line, name in imports(module, top_only=True)
        if stage_of(name) != "core"
    ]
    assert not faults, "\n".join(faults)


def test_core_and_runtime_and_calib_know_no_torch() -> None:
    faults = [
        f"{where(module, line)} imports {name}"
        for module in SOURCES
        if stage_of(module) in ("core", "runtime", "calib") and module not in COMPOSERS
        for line, name in imports(module)
        if name.split(".")[0] in TORCH
    ]
    assert not faults, "\n".join(faults)


def test_imports_are_absolute_and_through_the_package() -> None:
    faults = []
    for module in SOURCES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ImportFrom) and node.level > 0:
                faults.append(f"{where(module, node.lineno)} is a relative import")
            if isinstance(node, ast.Import | ast.ImportFrom):
                faults += [
                    f"{where(module, node.lineno)} imports {name}, not irforge.{name}"
                    for name in imported(node)
                    if name.split(".")[0] in STAGES
                ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_defines_no_classes(script: str) -> None:
    # It exists twice, as itself and as __main__; so would its classes.
    classes = [node.name for node in ast.walk(tree(script)) if isinstance(node, ast.ClassDef)]
    assert not classes


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_imports_nothing_heavy_at_its_top(script: str) -> None:
    heavy = [
        f"{where(script, line)} imports {name}"
        for line, name in imports(script, top_only=True)
        if name.split(".")[0] in HEAVY or (name.split(".")[0] == "irforge" and name not in LIGHT)
    ]
    assert not heavy, "\n".join(heavy)


def test_light_modules_are_light() -> None:
    code = f"import sys, {', '.join(sorted(LIGHT))}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)


def test_stage_modules_shadow_no_module_of_python_or_of_a_package() -> None:
    # `python train/fit.py` puts train/ first on the path: train/data hides a package called data from every import.
    ours = {path.stem for stage in STAGES for path in (ROOT / stage).glob("*.py")}
    ours |= {path.name for stage in STAGES for path in (ROOT / stage).iterdir() if (path / "__init__.py").is_file()}
    ours.discard("__init__")
    shadowed = ours & sys.stdlib_module_names
    shadowed |= {name for name in ours & set(packages_distributions()) if packages_distributions()[name] != ["irforge"]}
    assert not shadowed
