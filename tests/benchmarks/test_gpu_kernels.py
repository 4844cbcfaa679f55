"""The GPU script's checks of kernels, on those for the CPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import checks, library, ops
from irforge.errors import EnvironmentFault
from tests.benchmarks.gpu_records import ROOT

KERNELS = ROOT / "plugins" / "kernels"


def test_errors_are_counted_in_units_of_the_output() -> None:
    exact = torch.tensor([1.0, 1.9, -3.0, 1e-7, 0.0], dtype=torch.float64)
    units = torch.tensor([2.0**-10, 2.0**-10, 2.0**-9, 2.0**-24, 2.0**-24], dtype=torch.float64)
    assert torch.allclose(checks.errors(exact + 3 * units, exact, "float16"), torch.full((5,), 3.0).double())
    assert checks.errors(torch.tensor([torch.nan]), exact[:1], "float32").isinf().all()
    saturated = checks.errors(torch.tensor([127, -128], dtype=torch.int8), torch.tensor([900.0, -128.4]), "int8")
    assert saturated.tolist() == [0.0, 0.0]
    assert checks.tolerance(8, "float32") == 8
    assert 0.5 < checks.tolerance(8, "int8") < checks.tolerance(8, "float16") < 0.51


@pytest.mark.parametrize("layout", library.LAYOUTS)
def test_a_layout_and_back_is_the_same(layout: str) -> None:
    x = torch.arange(2 * 64 * 3 * 5).view(2, 64, 3, 5)
    memory = library.to_layout(x, layout)
    assert torch.equal(library.from_layout(memory.flatten(), (2, 64, 3, 5), layout), x)
    assert (memory.flatten()[1] != x.flatten()[1]) == (layout != "linear")


@pytest.mark.parametrize("op", ops.OPS)
def test_eager_forms_agree_with_float64(op: type[library.Op]) -> None:
    for case in op.cases():
        if torch.Size(case.shape).numel() > 20_000:
            continue
        inputs = [x.float() for x in case.inputs(torch.Generator().manual_seed(0))]
        reference, eager = case.reference(inputs), case.eager(*inputs)
        assert eager.shape == case.output_shape
        if case.output == "int8":
            assert eager.dtype == torch.int8
            assert checks.errors(eager, reference, "int8").max() <= checks.tolerance(case.tolerance, "int8")
        else:
            assert torch.allclose(eager.double(), reference, rtol=2e-3, atol=1e-6)


@pytest.fixture(scope="module")
def cpu_library(tmp_path_factory: pytest.TempPathFactory) -> library.KernelLibrary:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("kernels") / "libirforge_cpu.so"
    sources = [str(path) for path in sorted(KERNELS.glob("*.cpp")) if not path.stem.endswith("_cuda")]
    flags = ["-shared", "-fPIC", "-O2", "-std=c++17", f"-I{KERNELS.parent}"]
    subprocess.run([compiler, *flags, *sources, "-o", str(path)], check=True)
    return library.KernelLibrary(path, "cpu")


@pytest.mark.parametrize("op", ops.OPS)
def test_the_cpu_kernels_agree_with_float64(op: type[library.Op], cpu_library: library.KernelLibrary) -> None:
    cases = [case for case in op.cases() if case.layouts == ("linear", "linear")]
    small = [case for case in cases if torch.Size(case.shape).numel() < 200_000]
    assert {case.output for case in small} == {case.output for case in op.cases()}
    for case in small:
        found = checks.check(case, cpu_library)
        assert not found.failure, found
        assert found.max_error is not None and found.max_error <= found.limit


def test_a_wrong_a_refused_and_an_overlong_result_are_noticed(cpu_library: library.KernelLibrary) -> None:
    @dataclass(frozen=True)
    class Swapped(ops.MutualGate):
        def reference(self, inputs: object) -> torch.Tensor:
            g, l = inputs  # type: ignore[misc]
            return super().reference([l, g])

    @dataclass(frozen=True)
    class Short(ops.MutualGate):
        @property
        def output_shape(self) -> library.Shape:
            return (1, *self.shape[1:])

    shape = (1, 3, 5, 7)
    assert "differs from float64" in checks.check(Swapped(shape), cpu_library).failure
    assert "wrote outside" in checks.check(Short((1, 3, 2, 2)), cpu_library).failure
    refused = checks.check(replace(ops.MutualGate(shape), scales=(0.0, 1.0), output="int8"), cpu_library)
    assert "scale" in refused.failure and refused.max_error is None


def test_a_library_that_is_not_there_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be loaded"):
        library.KernelLibrary(tmp_path / "none.so", "cuda")
