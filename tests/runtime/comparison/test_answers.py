"""Promises of kept answers: an interrupted run goes on, and nothing stale is taken for new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from irforge.artifact import read_contract
from irforge.datasets import open_dataset
from irforge.errors import ArtifactError
from irforge.runtime.backends import open_session
from irforge.runtime.comparison import answers
from irforge.runtime.comparison.answers import answer_all, content_digest
from irforge.runtime.comparison.entry import Entry
from tests.runtime.comparison.conftest import write_set


class Counted:
    """Opens a model's session, and counts the frames that it runs."""

    def __init__(self, path: Path) -> None:
        self.path, self.runs = path, 0

    def __call__(self):
        session = open_session(self.path, threads=1)
        run = session.run

        def counted(*arguments):
            self.runs += 1
            return run(*arguments)

        session.run = counted
        return session


def entry(path: Path) -> tuple[Entry, Counted]:
    opened = Counted(path)
    return Entry(path.name, path, read_contract(path), opened, 0, None), opened


def ask(one: Entry, data: Path, folder: Path, tick: Callable[[], None] = lambda: None, first: int = 9):
    dataset = open_dataset(data)
    samples = dataset.samples[:first]
    return answer_all(one, samples, [content_digest(s) for s in samples], folder, 1, tick)


def test_an_interrupted_run_goes_on_where_it_stopped(bright, three: Path, tmp_path: Path) -> None:
    one, opened = entry(bright(128))
    seen = []

    def interrupt() -> None:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(one, three, tmp_path / "kept", interrupt)
    (file,) = (tmp_path / "kept").iterdir()
    assert opened.runs == 2 and file.name.startswith("bright128.onnx.")
    whole = ask(one, three, tmp_path / "kept")
    assert opened.runs == 3 and len(whole.frames) == 3
    again = ask(one, three, tmp_path / "kept")
    assert opened.runs == 3 and again == whole
    # Answers of one run are those of two.
    assert [a.scores for a in ask(one, three, tmp_path / "other").frames.values()] == [
        a.scores for a in whole.frames.values()
    ]


def test_a_longer_list_and_another_set_run_only_what_is_new(bright, three: Path, tmp_path: Path) -> None:
    one, opened = entry(bright(128))
    ask(one, three, tmp_path / "kept", first=1)
    ask(one, three, tmp_path / "kept")
    assert opened.runs == 3
    more = write_set(tmp_path / "more", {"renamed": ([(30, 30)], []), "new": ([(20, 50)], [])})
    ask(one, more, tmp_path / "kept")
    assert opened.runs == 4


def test_a_slow_run_is_written_down_as_it_goes(bright, three: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(answers, "SAVE_EVERY", -1.0)
    one, _ = entry(bright(128))
    written = []

    def count() -> None:
        written.append([len(answers.Answers.model_validate_json(p.read_bytes()).frames) for p in kept()])

    def kept() -> list[Path]:
        return list((tmp_path / "kept").glob("*.json"))

    ask(one, three, tmp_path / "kept", count)
    assert written == [[], [1], [2]] and len(kept()) == 1


def test_another_model_contract_or_truth_is_asked_anew(bright, three: Path, tmp_path: Path) -> None:
    one, opened = entry(bright(128, "m.onnx"))
    ask(one, three, tmp_path / "kept")
    stricter = one.contract.output.model_copy(update={"score_threshold": 0.9})
    changed = replace(one, contract=one.contract.model_copy(update={"output": stricter}))
    ask(changed, three, tmp_path / "kept")
    assert opened.runs == 6
    two, opened = entry(bright(200, "m.onnx"))
    ask(two, three, tmp_path / "kept")
    assert opened.runs == 3
    (three / "masks" / "b.png").write_bytes((three / "masks" / "c.png").read_bytes())
    ask(two, three, tmp_path / "kept")
    assert opened.runs == 4


def test_weights_beside_the_file_and_another_backend_are_asked_anew(bright, three: Path, tmp_path: Path) -> None:
    path = bright(128, "m.onnx")
    model = onnx.load(path)
    model.graph.node.remove(next(node for node in model.graph.node if node.output[0] == "mean"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([128], np.float32), "mean"))
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    one, opened = entry(path)
    ask(one, three, tmp_path / "kept")
    assert opened.runs == 3
    held = path.read_bytes()
    beside = bytearray((tmp_path / "m.data").read_bytes())
    at = bytes(beside).index(np.float32(128).tobytes())
    beside[at : at + 4] = np.float32(200).tobytes()
    (tmp_path / "m.data").write_bytes(beside)
    again = ask(one, three, tmp_path / "kept")
    assert path.read_bytes() == held and opened.runs == 6
    elsewhere = one.open()
    elsewhere.backend = "another"
    ask(replace(one, open=lambda: elsewhere), three, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert [f.threads for f in again.frames.values()] == [1, 1, 1]


def test_a_damaged_file_is_one_line(bright, three: Path, tmp_path: Path) -> None:
    one, _ = entry(bright(128))
    ask(one, three, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    file.write_text(file.read_text()[:-40])
    with pytest.raises(ArtifactError, match=r"holds no answers of a model\. Delete it"):
        ask(one, three, tmp_path / "kept")
