"""Promises of `irforge batch`: one result a video, resumable, and a bad video stops no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.errors import ArtifactError, EnvironmentFault, InputError, UsageError
from irforge.files import PARTIAL
from irforge.runtime import batch_pools
from irforge.runtime.batch import batch
from irforge.runtime.batch_plan import Job, Recipe, find_videos, plan
from irforge.runtime.batch_pools import in_processes
from irforge.runtime.run import run

Model = Callable[..., Path]
Frames = Callable[..., np.ndarray]


def write_clip(path: Path, frames: list[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


@pytest.fixture
def archive(tmp_path: Path, spot_frame: Frames) -> Path:
    """Three videos in two folders, of which two share their name."""
    for number, name in enumerate(["a/0001.avi", "a/0002.avi", "b/0001.avi"]):
        write_clip(tmp_path / "archive" / name, [spot_frame(x=4 * k, y=10 + 10 * number) for k in range(3 + number)])
    (tmp_path / "archive" / "notes.txt").write_text("no video")
    return tmp_path / "archive"


def results(folder: Path) -> dict[str, Path]:
    """Result files by the name of their video."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.jsonl*")}
    return {name.rsplit(".", 2)[0]: path for name, path in found.items()}


def test_an_archive_becomes_what_run_writes_for_each_video(
    tmp_path: Path, archive: Path, spot_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = spot_model(), tmp_path / "out"
    batch(model, [str(archive)], out, jobs=2)
    found = results(out)
    assert set(found) == {"a/0001.avi", "a/0002.avi", "b/0001.avi"}
    for name, path in found.items():
        run(model, [str(archive / name)], json_lines=tmp_path / "one.jsonl")
        assert path.read_text() == (tmp_path / "one.jsonl").read_text()
    shown = capsys.readouterr().out
    assert "a/0001.avi: 3 frames, 3 detections, " in shown and "3 of 3 videos are done" in shown
    keys = {path.name.split(".")[-2] for path in found.values()}
    assert len(keys) == 1
    facts = json.loads((out / f"batch.{keys.pop()}.json").read_text())
    assert facts["model"] == "spot.onnx" and len(facts["model_sha256"]) == 64
    # Once more: nothing is left to do, and nothing is touched.
    before = {path: path.stat().st_mtime_ns for path in found.values()}
    batch(model, [str(archive)], out)
    assert capsys.readouterr().out == "3 of 3 videos have their result already\n"
    assert before == {path: path.stat().st_mtime_ns for path in results(out).values()}


def test_a_new_video_is_added_and_another_recipe_is_refused_or_redone(
    tmp_path: Path, archive: Path, spot_model: Model, spot_frame: Frames
) -> None:
    model, out = spot_model(), tmp_path / "out"
    recipe = Recipe(model)
    videos = find_videos([str(archive / "a")])
    assert len(plan(recipe, videos, out)) == 2
    for job in plan(recipe, videos, out):
        job.result.write_text("{}\n")
    write_clip(archive / "a" / "0003.avi", [spot_frame()])
    assert [job.name for job in plan(recipe, find_videos([str(archive / "a")]), out)] == ["0003.avi"]
    # Neither the path of a model nor how fast it runs says anything about a result; what it is and its settings do.
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(model.read_bytes())
    assert not plan(Recipe(moved, batch=4, threads=2), videos, out)
    others = [Recipe(spot_model(batch=1)), Recipe(model, threshold=0.4), Recipe(model, telemetry="0,2")]
    for other in others:
        with pytest.raises(UsageError, match="another model or by other settings"):
            plan(other, videos, out)
    batch(model, [str(archive / "a")], out, threshold=0.4, redo=True, jobs=1)
    found = sorted(out.glob("*.avi.*"))
    assert len(found) == 3 and len({path.name.split(".")[-2] for path in found}) == 1
    assert "box" in found[0].read_text()


def test_a_video_that_fails_is_named_in_the_end_and_stops_no_other(
    tmp_path: Path, archive: Path, spot_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (archive / "a" / "0002.avi").read_bytes()
    (archive / "a" / "0002.avi").write_bytes(whole[:400])
    with pytest.raises(InputError, match=r"1 of 3 videos failed: a/0002.avi. Mend them") as caught:
        batch(spot_model(), [str(archive)], tmp_path / "out", jobs=1)
    assert caught.value.exit_code == 3
    assert set(results(tmp_path / "out")) == {"a/0001.avi", "b/0001.avi"}
    assert "a/0002.avi: failed: " in capsys.readouterr().out


def test_a_process_that_dies_costs_its_video_alone(
    tmp_path: Path, archive: Path, spot_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = find_videos([str(archive)])
    jobs = plan(Recipe(spot_model()), videos, tmp_path / "out")
    monkeypatch.setattr(batch_pools, "serve", dies_at_the_second)
    outcomes = {outcome.name: outcome for outcome in in_processes(Recipe(spot_model()), jobs, 1)}
    assert "SIGKILL" in outcomes["a/0002.avi"].error
    assert not outcomes["a/0001.avi"].error and not outcomes["b/0001.avi"].error


def dies_at_the_second(pipe: batch_pools.Connection, recipe: Recipe, device: str | None) -> None:
    """A worker that the system kills while it is at a video called 0002."""

    class Deadly(batch_pools.Worker):
        def __call__(self, job: Job) -> batch_pools.Outcome:
            if "0002" in job.name:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(job)

    batch_pools.Worker = Deadly  # type: ignore[misc]
    batch_pools.serve(pipe, recipe, device)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(tmp_path: Path, spot_model: Model) -> None:
    (tmp_path / "v").mkdir()
    for name, count in {"1.raw": 5, "2.raw": 50000}.items():
        with (tmp_path / "v" / name).open("wb") as file:
            file.truncate(64 * 64 * count)
    command = [sys.executable, "-m", "irforge.cli", "batch", str(spot_model()), "v", "-o", "out", "--jobs", "1"]
    command += ["--size", "64x64", "--bit-depth", "8"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes)
    while not list(tmp_path.glob(f"out/2.raw*{PARTIAL}")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors == "irforge: interrupted; nothing half-written was left\n"
    assert "1 of 2 videos are done; the same command goes on" in output
    assert set(results(tmp_path / "out")) == {"1.raw"}
    again = subprocess.run([*command, "--limit", "3", "--redo"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0 and set(results(tmp_path / "out")) == {"1.raw", "2.raw"}


def test_a_model_that_cannot_be_loaded_is_an_error_at_once(tmp_path: Path, archive: Path, spot_model: Model) -> None:
    with pytest.raises(ArtifactError, match="without a contract"):
        batch(spot_model(contract=False), [str(archive)], tmp_path / "out", jobs=1)
    with pytest.raises(UsageError, match="none of the suffixes"):
        batch(tmp_path / "x.txt", [str(archive)], tmp_path / "out")


def test_videos_that_are_none_or_the_same_are_refused(tmp_path: Path, archive: Path) -> None:
    assert list(find_videos([str(archive / "a" / "*.avi")])) == ["0001.avi", "0002.avi"]
    twice = [str(archive / "a"), str(archive / "a" / "0001.avi")]
    assert list(find_videos(twice)) == ["0001.avi", "0002.avi"]
    with pytest.raises(UsageError, match="would have the same result"):
        find_videos([str(archive / "a"), str(archive / "b")])
    (tmp_path / "empty").mkdir()
    refused = {"no videos in": tmp_path / "empty", "no video by its name": archive / "notes.txt"}
    refused["there is no video"] = tmp_path / "none.mp4"
    for words, path in refused.items():
        with pytest.raises(InputError, match=words):
            find_videos([str(path)])


def test_tiles_tracks_and_corrections_are_those_of_run(tmp_path: Path, spot_model: Model) -> None:
    pytest.importorskip("trackers")
    random = np.random.default_rng(0)
    frames = random.normal(90, 3, (6, 100, 120))
    for k in range(6):
        frames[k, 40:43, 50 + 2 * k : 53 + 2 * k] = 200
    frames[:, 96:] = 255
    (tmp_path / "clip.raw").write_bytes(frames.clip(0, 255).astype(np.uint8).tobytes())
    options = {"size": "120x100", "bit_depth": 8, "telemetry": "0,4", "tile": 16, "track": True, "limit": 5}
    model = spot_model()
    run(model, [str(tmp_path / "clip.raw")], json_lines=tmp_path / "one.jsonl", **options)
    batch(model, [str(tmp_path / "clip.raw")], tmp_path / "out", jobs=1, **options)
    (path,) = results(tmp_path / "out").values()
    assert path.read_text() == (tmp_path / "one.jsonl").read_text()
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["index"] == 4 and last["detections"][0]["track"] >= 0


def test_without_ray_it_is_one_line(tmp_path: Path, archive: Path, spot_model: Model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'irforge\[ray\]'"):
        batch(spot_model(), [str(archive)], tmp_path / "out", ray=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_does_what_processes_do(tmp_path: Path, archive: Path, spot_model: Model) -> None:
    """On a cluster of this machine alone, which Ray starts for the test."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'irforge[ray]'")
    whole = (archive / "a" / "0002.avi").read_bytes()
    (archive / "a" / "0002.avi").write_bytes(whole[:400])
    model = spot_model()
    with pytest.raises(InputError):
        batch(model, [str(archive)], tmp_path / "local", jobs=1)
    command = [sys.executable, "-m", "irforge.cli", "batch", str(model), str(archive), "-o", "out", "--ray"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    if "Ray does not start here" in done.stderr:
        pytest.skip("Ray gives its own processes 15 to 30 s to start, and this machine is too busy")
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("irforge: 1 of 3 videos failed: a/0002.avi")
    local, by_ray = results(tmp_path / "local"), results(tmp_path / "out")
    assert set(by_ray) == set(local) == {"a/0001.avi", "b/0001.avi"}
    assert all(by_ray[name].read_text() == local[name].read_text() for name in local)
