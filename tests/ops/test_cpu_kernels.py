"""The CPU kernels themselves, through their C functions, hold the golden values of the operators."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

LIBRARY = Path(__file__).parents[2] / "build" / "lib" / "libirforge_cpu.so"

G = np.array([-2, -1, 0, 1, 2])
L = np.array([3, 0, -3, 1, -1])
GOLDEN = np.array([[-1.90514825, -0.5, 0, 0.73105858, 0.53788284], [0.35760877, 0, -1.5, 0.73105858, -0.88079708]])
TYPES = {"float32": 0, "float16": 1, "int8": 2}


class MutualGate(ctypes.Structure):
    """`irforge_mutual_gate` of plugins/kernels/c_api.h."""

    _fields_ = (
        *((side, ctypes.c_int64) for side in ("batch", "channels", "height", "width")),
        *((kind, ctypes.c_int32) for kind in ("input_type", "output_type", "input_layout", "output_layout")),
        *((scale, ctypes.c_float) for scale in ("scale_g", "scale_l")),
    )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if not LIBRARY.is_file():
        pytest.skip("the native parts are not built (plugins/build.sh)")
    return ctypes.CDLL(str(LIBRARY))


@pytest.mark.parametrize("output", TYPES)
@pytest.mark.parametrize("given", ["float32", "float16"])
def test_mutual_gate_has_the_golden_values(library: ctypes.CDLL, given: str, output: str) -> None:
    scales = (0.015, 0.012) if output == "int8" else (0.0, 0.0)
    problem = MutualGate(1, 1, 1, 5, TYPES[given], TYPES[output], 0, 0, *scales)
    g, l, found = G.astype(given), L.astype(given), np.zeros((2, 5), output)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (g, l, found)]
    assert library.irforge_mutual_gate_cpu(ctypes.byref(problem), *pointers) == 0
    if output == "int8":
        steps = GOLDEN / np.float32(scales)[:, None]
        np.testing.assert_array_equal(found, np.clip(np.rint(steps), -128, 127))
    else:
        np.testing.assert_allclose(found, GOLDEN, atol=2e-7 if output == "float32" else 1e-3)
