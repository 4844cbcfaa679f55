"""What the ONNX Runtime session promises, on graphs of a few nodes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from irforge.errors import ArtifactError, EnvironmentFault, InputError
from irforge.runtime.backends import open_session
from irforge.runtime.backends.ort import OrtSession
from irforge.session import Session

DOUBLE = """<ir_version: 8, opset_import: ["": 17]>
double (uint8[N, 1, H, 8] frames) => (float[N, 1, H, 8] mask, float[N] peak) {
    pixels = Cast<to = 1>(frames)
    two = Constant<value = float {2.0}>()
    mask = Mul(pixels, two)
    peak = ReduceMax<axes = [1, 2, 3], keepdims = 0>(mask)
}"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "double.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE), path)
    return path


def frames(batch: int = 2, height: int = 4) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, 1, height, 8), dtype=np.uint8)


def test_a_session_follows_the_protocol_and_returns_what_the_graph_computes(model: Path) -> None:
    with OrtSession(model) as session:
        assert isinstance(session, Session)
        assert session.inputs["frames"].dtype == "uint8"
        assert session.inputs["frames"].shape == ("N", 1, "H", 8)
        results = session.run({"frames": frames()})
    np.testing.assert_array_equal(results["mask"], frames() * np.float32(2))
    np.testing.assert_array_equal(results["peak"], frames().max(axis=(1, 2, 3)) * np.float32(2))


def test_results_land_in_the_arrays_of_out_even_when_shapes_change_between_runs(model: Path) -> None:
    with OrtSession(model) as session:
        for batch, height in [(2, 4), (2, 4), (1, 6), (3, 4)]:
            feeds = {"frames": frames(batch, height)}
            out = {"mask": np.full((batch, 1, height, 8), -1, np.float32), "peak": np.full(batch, -1, np.float32)}
            assert session.run(feeds, out) is out
            np.testing.assert_array_equal(out["mask"], feeds["frames"] * np.float32(2))
            np.testing.assert_array_equal(out["peak"], out["mask"].max(axis=(1, 2, 3)))


def test_a_view_with_strides_is_fed_right(model: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 16), dtype=np.uint8)
    feed = wide[..., ::2]
    out = {"mask": np.empty((1, 1, 4, 8), np.float32)}
    with OrtSession(model) as session:
        session.run({"frames": feed}, out)
        np.testing.assert_array_equal(out["mask"], feed * np.float32(2))


def test_several_threads_may_run_one_session(model: Path) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        out = {"mask": np.empty((seed, 1, 4, 8), np.float32), "peak": np.empty(seed, np.float32)}
        for _ in range(50):
            session.run({"frames": frames(seed)}, out)
            if not np.array_equal(out["mask"], frames(seed) * np.float32(2)):
                wrong.append(seed)

    with OrtSession(model, threads=1) as session:
        workers = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not wrong


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"images": frames()},
        {"frames": frames().astype(np.float32)},
        {"frames": frames()[0]},
        {"frames": frames()[..., :7]},
        {"frames": frames()[:0]},
        {"frames": frames().tolist()},
    ],
    ids=["missing", "unknown", "dtype", "rank", "width", "batch of none", "a list"],
)
def test_feeds_that_do_not_fit_are_refused_by_name(model: Path, feeds: dict[str, np.ndarray]) -> None:
    with OrtSession(model) as session, pytest.raises(InputError, match="frames"):
        session.run(feeds)


@pytest.mark.parametrize(
    "out",
    [
        {"masks": np.empty((2, 1, 4, 8), np.float32)},
        {"mask": np.empty((2, 1, 4, 8), np.float64)},
        {"mask": np.empty((1, 1, 4, 8), np.float32)},
        {"mask": np.empty((2, 1, 4, 16), np.float32)[..., ::2]},
    ],
    ids=["unknown", "dtype", "other batch than the feed", "strided"],
)
def test_result_arrays_that_do_not_fit_are_refused(model: Path, out: dict[str, np.ndarray]) -> None:
    with OrtSession(model) as session, pytest.raises(InputError, match="mask"):
        session.run({"frames": frames()}, out)


def test_a_closed_session_says_so(model: Path) -> None:
    session = OrtSession(model)
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run({"frames": frames()})


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None], ids=["empty", "html", "truncated"])
def test_a_damaged_model_is_one_line(model: Path, content: bytes | None) -> None:
    model.write_bytes(model.read_bytes()[:-40] if content is None else content)
    with pytest.raises(ArtifactError) as caught:
        OrtSession(model)
    assert str(model) in caught.value.line


def test_a_graph_that_onnxruntime_refuses_is_one_line(tmp_path: Path) -> None:
    graph = DOUBLE.replace("Mul(pixels, two)", "Nonsense(pixels, two)")
    path = tmp_path / "nonsense.onnx"
    onnx.save(onnx.parser.parse_model(graph), path)
    with pytest.raises(ArtifactError, match="Nonsense"):
        OrtSession(path)


def test_a_missing_provider_is_an_error_and_never_a_fallback(model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(EnvironmentFault, match="onnxruntime-gpu"):
        OrtSession(model, "cuda")


def test_open_session_says_which_backend_it_took(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="irforge"), open_session(model) as session:
        assert session.backend == "onnxruntime"
    assert "onnxruntime" in caplog.text
