"""Promises of the fourth clock's record: `irforge run --timing`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irforge.errors import ArtifactError, UsageError
from irforge.runtime.counts import Counts
from irforge.runtime.report.run_timing import read_run_timing, run_timing, write_run_timing
from irforge.runtime.report.show import report
from irforge.runtime.run import run
from irforge.session import StageTimes

WORDS = {"command": "irforge run m.onnx camera:0", "detector": "m", "sources": ["camera 0"], "policy": "latest"}


def counts(ages: list[float]) -> Counts:
    done = Counts(read=12, dropped=2, inferred=10, runs=10, published=10, detections=7, seconds=2.0)
    done.times.extend(StageTimes(0.001, 0.004, 0.002, {"track": 0.0005}) for _ in range(10))
    done.ages.extend(ages)
    done.busy["infer"] = 1.0
    return done


def test_ages_stages_drops_and_rate_are_kept() -> None:
    found = run_timing(counts([0.02] * 9 + [0.05]), **WORDS)
    assert found.age is not None and (found.age.n, found.age.p50, found.age.max) == (10, 20, 50)
    assert set(found.stages) == {"prepare", "infer", "decode", "track"} and found.stages["infer"].p50 == 4
    assert found.frames_per_second == 5 and found.busy["infer"] == 0.5
    assert (found.read, found.dropped, found.detections) == (12, 2, 7)


def test_recordings_have_no_age_and_say_why() -> None:
    found = run_timing(counts([]), **WORDS)
    assert found.age is None and "recordings" in found.age_note
    assert "no frame was published" in run_timing(Counts(), **WORDS).age_note


def test_what_is_written_reads_back_equal_and_damage_is_one_line(tmp_path: Path) -> None:
    path, timing = tmp_path / "run.json", run_timing(counts([0.02]), **WORDS)
    write_run_timing(timing, path)
    assert read_run_timing(path) == timing
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"age": None}))
    with pytest.raises(ArtifactError, match="needs its reason"):
        read_run_timing(path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="holds no times of a run"):
        read_run_timing(path)


def test_irforge_run_takes_the_age_of_a_live_source_and_explains_its_absence_elsewhere(
    spot_model, tmp_path: Path
) -> None:
    live, recorded = tmp_path / "live.json", tmp_path / "recorded.json"
    run(spot_model(), ["synthetic:64x64,live=1,fps=50,frames=15"], timing=live)
    found = read_run_timing(live)
    assert found.age is not None and found.age.n == found.published and found.read == found.published + found.dropped
    # From its capture on, a frame was at least prepared, inferred and decoded.
    assert found.age.min >= min(found.stages["infer"].min, found.stages["decode"].min)
    assert found.policy == "latest" and found.command.startswith("irforge run ")
    run(spot_model(), ["synthetic:64x64,frames=5"], timing=recorded)
    found = read_run_timing(recorded)
    assert found.published == 5 and found.age is None and "recordings" in found.age_note


def test_times_without_a_report_are_not_shown(tmp_path: Path) -> None:
    write_run_timing(run_timing(counts([0.02]), **WORDS), path := tmp_path / "run.json")
    with pytest.raises(UsageError, match="stand in a report"):
        report([path], None)
