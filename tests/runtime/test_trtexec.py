"""trtexec's JSON as NVIDIA's source writes it, and the commands that make it: no GPU is here to take it from."""

from __future__ import annotations

import json
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from irforge.artifact import read_contract
from irforge.errors import ArtifactError, UsageError
from irforge.runtime.report.given import sort_out
from irforge.runtime.report.page import render_trtexec
from irforge.runtime.report.show import report as show
from irforge.runtime.report.trtexec_view import print_trtexec
from irforge.runtime.trtexec import kind_of, measuring_commands, read_trtexec
from irforge.session import TensorInfo


def run(start: float, compute: float) -> dict[str, float]:
    end = start + 0.05 + compute
    return {
        "startEnqMs": start, "endEnqMs": start + 0.02,
        "startH2dMs": start, "endH2dMs": start + 0.05,
        "startComputeMs": start + 0.05, "endComputeMs": end,
        "startD2hMs": end, "endD2hMs": end + 0.03,
        "h2dMs": 0.05, "computeMs": compute, "d2hMs": 0.03, "latencyMs": compute + 0.08,
    }  # fmt: skip


TIMES = [run(2.0 * i, 1.0 if i < 99 else 7.5) for i in range(100)]
PROFILE = [
    {"count": 250},
    {"name": "conv1 + relu", "timeMs": 50.0, "averageMs": 0.2, "medianMs": 0.19, "percentage": 25.0},
    {"name": "conv2", "timeMs": 150.0, "averageMs": 0.6, "medianMs": 0.6, "percentage": 75.0},
]
LAYERS = {
    "Layers": [
        {"Name": "conv1 + relu", "LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half"}]},
        {"Name": "conv2", "LayerType": "CaskConvolution", "Outputs": [{"DataType": "Int8"}]},
    ],
    "Bindings": ["frames", "mask"],
}


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(value))
    return path


def test_kinds_are_told_apart_by_content() -> None:
    assert [kind_of(value) for value in (TIMES, PROFILE, LAYERS)] == ["times", "profile", "layers"]
    assert [kind_of(value) for value in ([], {}, None, [1], {"Layers": 3}, [{"a": 1}])] == [None] * 6


def test_every_run_counts_and_percentiles_are_measured(tmp_path: Path) -> None:
    (found,) = sort_out([write(tmp_path, "t.json", TIMES)]).trtexec
    compute = found.clocks["compute"]
    assert (compute.n, compute.min, compute.p50, compute.p99, compute.max) == (100, 1, 1, 1, 7.5)
    assert found.clocks["latency"].max == pytest.approx(7.58) and found.clocks["copy in"].p50 == pytest.approx(0.05)
    assert found.calls[-1] == 7.5 and len(found.calls) == 100
    # Begins are 2 ms apart and computes last 1: the device waits for 1.
    assert found.gap == pytest.approx(1.0)


def test_files_before_tensorrt_8_5_call_copies_in_and_out(tmp_path: Path) -> None:
    names = {"h2dMs": "inMs", "d2hMs": "outMs"}
    older = [{names.get(key, key): value for key, value in row.items()} for row in TIMES]
    (found,) = sort_out([write(tmp_path, "t.json", older)]).trtexec
    assert found.clocks["copy out"].p50 == pytest.approx(0.03)


def test_profile_and_layers_join_the_times_before_them(tmp_path: Path) -> None:
    paths = [write(tmp_path, name, v) for name, v in (("a.json", TIMES), ("p.json", PROFILE), ("l.json", LAYERS))]
    one, other = sort_out([*paths, write(tmp_path, "b.json", TIMES)]).trtexec
    assert [(layer.name, layer.share) for layer in one.layers] == [("conv2", 0.75), ("conv1 + relu", 0.25)]
    assert one.runs == 250 and one.types == {"Half": 1, "Int8": 1}
    assert other.name == "b.json" and not other.layers and other.types is None


def test_the_page_and_the_table_show_distributions_and_layers(tmp_path: Path) -> None:
    runs = sort_out(
        [write(tmp_path, n, v) for n, v in (("t.json", TIMES), ("p.json", PROFILE), ("l.json", LAYERS))]
    ).trtexec
    page = render_trtexec(runs)
    for words in ("7.50", "conv1 + relu", "75.0 %", "1 Half, 1 Int8", "the device waits between runs", "over 250 runs"):
        assert words in page, words
    assert "<script" not in page and "http:" not in page.replace("http-equiv", "")
    console = Console(width=100, record=True, file=StringIO())
    print_trtexec(runs, console)
    shown = console.export_text()
    assert "7.50" in shown and "conv2" in shown and "…" not in shown


def test_the_command_writes_a_page_beside_the_times(tmp_path: Path, capsys) -> None:
    show([write(tmp_path, "t.json", TIMES)], None)
    assert (tmp_path / "t.html").is_file() and capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "t.html")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r[3].pop("computeMs"), "run 3: computeMs is null"),
        (lambda r: r[0].update(latencyMs="2"), 'run 0: latencyMs is "2"'),
        (lambda r: r[5].update(computeMs=float("nan")), "run 5: computeMs is NaN"),
        (lambda r: r[7].update(d2hMs=-1.0), "d2hMs is -1, and no time is negative"),
        (lambda r: r[2].update(computeMs=True), "run 2: computeMs is true"),
    ],
)
def test_times_that_are_none_are_one_line(tmp_path: Path, edit, message: str) -> None:
    rows = [dict(row) for row in TIMES]
    edit(rows)
    with pytest.raises(ArtifactError) as caught:
        sort_out([write(tmp_path, "t.json", rows)])
    assert message in caught.value.line and "t.json" in caught.value.line and "\n" not in caught.value.line


def test_a_profile_without_times_and_layers_without_detail_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no times"):
        sort_out([write(tmp_path, "p.json", PROFILE)])
    plain = {"Layers": ["conv1", "conv2"]}
    with pytest.raises(ArtifactError, match="--profilingVerbosity=detailed"):
        read_trtexec({"times": (tmp_path / "t.json", TIMES), "layers": (tmp_path / "l.json", plain)})


def test_files_that_are_nothing_known_are_one_line(tmp_path: Path) -> None:
    for content in ("", "[1]", "{}", "\x00"):
        path = tmp_path / "x.json"
        path.write_text(content)
        with pytest.raises(ArtifactError, match="is not a report"):
            sort_out([path])
    with pytest.raises(ArtifactError, match="is a folder"):
        sort_out([tmp_path])
    with pytest.raises(UsageError, match="there is none"):
        show([_run_file(tmp_path)], None)


def _run_file(folder: Path) -> Path:
    from irforge.runtime.counts import Counts
    from irforge.runtime.report.run_timing import run_timing, write_run_timing

    path = folder / "run.json"
    write_run_timing(run_timing(Counts(), command="", detector="", sources=["x"], policy="lossless"), path)
    return path


def test_the_command_of_a_free_graph_names_its_shape_and_exports_what_is_read(spot_model) -> None:
    path = spot_model()
    inputs = {"frames": TensorInfo("uint8", ("N", 1, 64, 64))}
    commands = measuring_commands(path, read_contract(path), inputs)
    assert set(commands) == {"10", "11"}
    for major, line in commands.items():
        words = shlex.split(line)
        assert words[0] == "trtexec" and f"--onnx={path}" in words and "--optShapes=frames:1x1x64x64" in words
        assert {"--exportTimes=spot.times.json", "--exportProfile=spot.profile.json"} < set(words)
        assert ("--separateProfileRun" in words) == ("--stronglyTyped" in words) == (major == "10")


def test_a_fixed_graph_needs_no_shapes_and_an_engine_is_loaded(spot_model) -> None:
    path = spot_model(batch=1)
    contract, fixed = read_contract(path), {"frames": TensorInfo("uint8", (1, 1, 64, 64))}
    assert "Shapes" not in measuring_commands(path, contract, fixed)["11"]
    engine = path.with_name("spot.engine")
    words = shlex.split(measuring_commands(engine, contract, fixed)["11"])
    assert words[:2] == ["trtexec", f"--loadEngine={engine}"]
    assert all(word.startswith("--export") for word in words[2:])
