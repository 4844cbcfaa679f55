"""The few-shot study goes on where it stopped, mixes no settings, and claims what its intervals support."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.fewshot import fewshot, numbers
from benchmarks.fewshot_study import Step, Study
from benchmarks.fewshot_table import markdown, summary
from irforge.errors import UsageError
from irforge.train.recipe import Recipe
from tests.train.few_shot_data import base_recipe, novel_recipe, write_kinds

pytestmark = pytest.mark.filterwarnings("ignore")


def study_of(out: Path, root: Path, **changes: object) -> Study:
    base, novel = (Recipe.model_validate(make(root)) for make in (base_recipe, novel_recipe))
    settings = {"test": f"{root}:test", "shots": (1,), "seeds": 2, "variants": ("plain", "ca"), "pcb": False}
    return Study(out, base, novel, **(settings | changes))  # type: ignore[arg-type]


# ---------------------------------------------------------------- steps


def test_bases_come_first_and_a_draw_is_complete_before_the_next_one_begins(tmp_path: Path) -> None:
    study = study_of(tmp_path, tmp_path, shots=(1, 3), variants=("plain", "neck", "bnrl"))
    assert [step.name for step in study.steps] == [
        "base-plain",
        "base-neck",
        *(f"{name}-{k}shot-seed{seed}" for seed in (0, 1) for k in (1, 3) for name in ("plain", "neck", "bnrl")),
    ]
    assert study.steps[3].network == "neck" and study.steps[4].network == "plain"


def test_variants_differ_in_what_they_are_named_after_and_in_nothing_else(tmp_path: Path) -> None:
    study = study_of(tmp_path, tmp_path)
    plain, ca, neck, bnrl = (study.recipe(Step(name, 1, 1)) for name in ("plain", "ca", "neck", "bnrl"))
    assert plain.loss["classification"] == "ce" and ca.loss["objectness"] == "ca"
    assert bnrl.loss["classification"] == "bnrl" and bnrl.loss["objectness"] == "bce"
    for other in (ca, bnrl):
        assert other.model_copy(update={"loss": plain.loss}) == plain
    assert not plain.network["neck"] and neck.network["neck"]
    assert neck.model_copy(update={"network": ca.network}) == ca
    assert plain.data[0].data.endswith("train_1shot_seed1")


def test_a_step_is_for_one_worker_until_it_is_done(tmp_path: Path) -> None:
    study = study_of(tmp_path, tmp_path)
    step = study.steps[0]
    with study.taken(step) as mine, study.taken(step) as again:
        assert mine and not again
    with study.taken(step) as mine:
        assert mine
    (tmp_path / "steps" / f"{step.name}.json").write_text(json.dumps({"key": study.key(step)}))
    with study.taken(step) as mine:
        assert not mine


def test_steps_of_other_recipes_or_data_are_refused(tmp_path: Path) -> None:
    study = study_of(tmp_path, tmp_path)
    step = study.steps[-1]
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / f"{step.name}.json").write_text(json.dumps({"key": study.key(step)}))
    assert study.record(step) is not None
    # More seeds, shots or variants change no step that is there.
    assert study_of(tmp_path, tmp_path, seeds=5, variants=("bnrl", "ca")).record(step) is not None
    with pytest.raises(UsageError, match="another recipe or for other data"):
        study_of(tmp_path, tmp_path, test="sky:test").record(step)
    other = study.base.model_copy(update={"seed": 9})
    with pytest.raises(UsageError, match="another recipe or for other data"):
        Study(tmp_path, other, study.novel, study.test, (1,), 2, ("ca",), False).record(step)


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_and_prints_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_kinds(tmp_path / "kinds"), tmp_path / "study"
    for name, recipe in (("base", base_recipe(root)), ("novel", novel_recipe(root))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    arguments = {
        "base": tmp_path / "base.yaml",
        "novel": tmp_path / "novel.yaml",
        "test": f"{root}:test",
        "shots": "1",
        "seeds": 2,
        "variants": "plain,ca",
        "pcb": False,
        "jobs": 1,
        "threads": 1,
    }
    whole = Study.run

    def cut(self: Study, step: Step, say: object) -> None:
        if step.shots:
            raise KeyboardInterrupt
        whole(self, step, say)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Study, "run", cut)
        fewshot(out, **arguments)  # type: ignore[arg-type]
    base = (out / "steps" / "base-plain.json").read_text()
    fewshot(out, **arguments)  # type: ignore[arg-type]
    assert (out / "steps" / "base-plain.json").read_text() == base
    assert len(list((out / "steps").glob("*.json"))) == 5
    shown = capsys.readouterr().out
    assert "| 1 | plain | 2 |" in shown and "| 1 | confusion-aware losses | 2 |" in shown
    assert (out / "table.md").read_text() in shown
    written = json.loads((out / "table.json").read_text())
    step = json.loads((out / "steps" / "ca-1shot-seed1.json").read_text())
    assert step["plain"]["nAP"] >= 0 and step["frames"] == 9
    (ours,) = (row for row in written["means"] if row["variant"] == "ca")
    assert ours["nAP"]["seeds"] == 2
    assert not list(out.glob("*shot*/*.safetensors"))


def test_a_study_stops_in_time_and_shows_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, recipe in (("base", base_recipe(tmp_path)), ("novel", novel_recipe(tmp_path))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(Study, "work", lambda study, say: time.sleep(200))
    begin = time.monotonic()
    fewshot(
        tmp_path / "out",
        minutes=0.02,
        jobs=1,
        threads=1,
        shots="1",
        base=tmp_path / "base.yaml",
        novel=tmp_path / "novel.yaml",
        test="sky:test",
        pcb=False,
    )
    assert time.monotonic() - begin < 100
    assert (tmp_path / "out" / "table.md").is_file()


# ---------------------------------------------------------------- tables


def test_a_gain_is_claimed_only_where_the_interval_has_no_zero() -> None:
    figures = {}
    for seed, (plain, ca, bnrl) in enumerate([(0.2, 0.26, 0.21), (0.3, 0.35, 0.34), (0.1, 0.17, 0.05)]):
        for name, value in (("plain", plain), ("ca", ca), ("bnrl", bnrl), ("plain+pcb", plain - 0.1 - 0.01 * seed)):
            figures[name, 3, seed] = {"nAP": value, "nAP50": value, "bAP": 0.4}
    found = summary(figures, {"plain": {"AP": 0.5, "AP50": 0.8}})
    verdicts = {row["what"]: row["verdict"] for row in found["gains"]}
    assert verdicts == {
        "confusion-aware losses": "gain",
        "PCB on plain": "loss",
        "BNRL for cross-entropy": "not shown",
    }
    text = markdown(found)
    assert "| plain | 0.500 | 0.800 |" in text and "| 3 | ca | 3 | 0.260 ± 0.224 |" in text
    assert "| 3 | confusion-aware losses | 3 | +0.060 ± 0.025 |" in text


def test_differences_are_of_draws_that_both_have() -> None:
    figures = {("plain", 1, seed): {"nAP": 0.1 * seed} for seed in (0, 1)} | {("ca", 1, 1): {"nAP": 0.3}}
    (row,) = summary(figures, {})["gains"]
    assert row["seeds"] == 1 and row["nAP"]["mean"] == pytest.approx(0.2) and row["verdict"] == "one draw shows nothing"


def test_limited_rescoring_is_held_to_rescoring_of_all_boxes() -> None:
    values = {"neck": 0.3, "neck+pcb": 0.35, "neck+pcb5": 0.33}
    figures = {(name, 1, seed): {"nAP": value + 0.1 * seed} for name, value in values.items() for seed in (0, 1)}
    found = summary(figures, {})
    gains = {row["what"]: row["nAP"]["mean"] for row in found["gains"]}
    assert gains["PCB of 5 boxes a frame, for all"] == pytest.approx(-0.02)
    assert "PCB of 10 boxes a frame, for all" not in gains
    assert [row["variant"] for row in found["means"]] == ["neck", "neck+pcb"]


@pytest.mark.parametrize("text", ["", "1,1", "0,3", "one"])
def test_shots_are_different_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="no list of different numbers"):
        numbers(text)
    assert numbers("1,3,10") == (1, 3, 10)
