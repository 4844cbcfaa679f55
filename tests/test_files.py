"""An artifact is either whole or not there."""

import json
import shutil
import stat
from pathlib import Path

import cv2
import pytest

from irforge.cli import application
from irforge.errors import UsageError
from irforge.files import refuse_overwriting, replacing, sha256_of_file, sha256_of_json, write_bytes, write_json
from irforge.runtime.run import run


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    write_bytes(target, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "overlay.mp4") as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path
        temporary.write_bytes(b"x")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "report.json", {"k": [1, 2]})
    assert (tmp_path / "a/b/report.json").read_text() == '{\n  "k": [\n    1,\n    2\n  ]\n}\n'


def test_others_can_read_what_is_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"1")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) & stat.S_IRUSR


def test_nan_never_enters_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"p99": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_hashes_are_those_of_the_content(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"abc")
    assert sha256_of_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of_json({"b": 1, "a": 2}) == sha256_of_json({"a": 2, "b": 1}) != sha256_of_json({"a": 1, "b": 2})


OVER_AN_INPUT = """
run m.onnx imgs/1.png --json m.onnx
run m.onnx imgs/1.png --json ./imgs/../imgs/1.png
run m.onnx imgs --json imgs/0.png
run m.onnx imgs/*.png --mot imgs/0.png
run m.onnx imgs/*.png --json o.0.jsonl --overlay imgs
run m.onnx imgs --overlay imgs
run m.onnx imgs/1.png --overlay imgs
run m.onnx set --overlay set/images
run m.onnx linked --overlay imgs
run m.onnx rec.y16 --size 64x48 --mot rec.y16
run m.onnx clip.mp4 --overlay clip.mp4
run m.onnx imgs --dead-pixels dead.png --json dead.png
run m.engine imgs --timing m.engine.json
run m.onnx imgs --json o --mot o
run m.onnx imgs --json o --timing ./o
run m.onnx imgs set --json o.jsonl --timing o.1.jsonl
live m.onnx imgs --json imgs/0.png
live m.onnx imgs --json m.onnx
data imgs --json imgs/0.png
data set --overlap imgs --json imgs/0.png
data coco/annotations/a.json --json coco/annotations/a.json
data coco --json coco/annotations/a.json
calibrate m.onnx imgs -o m.onnx
calibrate m.json imgs -o m.json
sensitivity m.onnx imgs --ranges r.json -o r.json
sensitivity m.onnx imgs --ranges r.json -o m.onnx
quantize m.onnx --ranges r.json -o m.onnx
quantize m.onnx --ranges r.onnx -o r.onnx
half m.onnx -o m.onnx
half m.onnx -o link.onnx
fuse m.onnx -o m.onnx
unroll m.onnx -o m.onnx
export m.onnx -o m.onnx
adopt m.onnx -o m.onnx
rescore m.onnx -o m.onnx --by clip
rescore d.onnx -o d2.onnx --by clip --weights d2.rescore.onnx
build m.engine -o m.engine
build m.onnx -o n.rtx.engine --timing-cache m.onnx
surgery remove w.safetensors -o w.safetensors
bench m.onnx -o m2.onnx
bench m.json -o m.json
bench m.engine -o m.engine.json
compare m.onnx --data set -o c.json --csv m.onnx
compare m.onnx --data set -o c.json --csv c.json
compare m.onnx --data set -o c.json --csv c.html
compare m.onnx --data set -o c.json --csv set/images/0.png
compare --from c.json --csv c.json
report b.json -o b.json
report b.html
"""


@pytest.mark.parametrize("line", OVER_AN_INPUT.strip().splitlines())
def test_no_verb_writes_over_what_it_reads_or_writes(
    line: str, tmp_path: Path, spot_model, spot_frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(spot_model(), "m.onnx")
    for folder in ("imgs", "set/images", "set/masks", "coco/images", "coco/annotations"):
        Path(folder).mkdir(parents=True)
    for number in range(2):
        for folder in ("imgs", "set/images", "set/masks", "coco/images"):
            assert cv2.imwrite(f"{folder}/{number}.png", spot_frame())
    names = "m.json m2.onnx d.onnx d2.rescore.onnx r.json r.onnx c.json c.html b.json b.html w.safetensors dead.png"
    for name in f"{names} m.engine m.engine.json rec.y16 clip.mp4".split():
        Path(name).write_bytes(name.encode())
    Path("coco/annotations/a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    Path("link.onnx").symlink_to("m.onnx")
    Path("linked").symlink_to("imgs")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    verb, *arguments = line.split()
    with pytest.raises(UsageError) as refused:
        application(verb)([verb, *arguments], standalone_mode=False)
    assert refused.value.exit_code == 2 and refused.value.line.startswith("'")
    assert any(words in refused.value.line for words in ("would destroy", "written twice", "does not end in"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_results_beside_what_is_read_are_written_again_and_again(
    tmp_path: Path, spot_model, spot_frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("imgs").mkdir()
    assert cv2.imwrite("imgs/0.png", spot_frame())
    for _ in range(2):
        outputs = (Path("imgs") / name for name in ("o.jsonl", "o.csv", "marks", "t.json"))
        run(spot_model(), ["imgs"], *outputs)
    assert {path.name for path in Path("imgs").iterdir()} == {"0.png", "o.jsonl", "o.csv", "marks", "t.json"}
    refuse_overwriting([Path("imgs/1.png"), None, Path("imgs")], [None, Path("imgs/0.png")])
