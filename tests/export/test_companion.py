"""Image encoders as graphs of their own: equal to torch inside the runtime, taken by NVIDIA's compiler, named in a
deployable's contract."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto
from torch.nn import functional as F

from irforge.artifact import load_model, read_contract, save_model
from irforge.calib.cast import cast_to_half
from irforge.calib.floats import raise_opset
from irforge.calib.islands import fp32_islands
from irforge.errors import ArtifactError, CheckFailed, InputError, IrforgeError, UsageError
from irforge.export.companion import attach, example_feeds, largest_difference, onnx_from_rescorer, read_spec
from irforge.graph import Graph
from irforge.rescoring import RescoringSpec, padded_frame
from irforge.runtime.backends.ort import OrtSession
from irforge.runtime.detector import load
from irforge.runtime.engines import Profile
from irforge.runtime.parts import compile_part
from irforge.runtime.rescoring import SessionRescorer
from irforge.train.rescoring.clip import Clip, ClipSizes
from irforge.train.rescoring.cm_clip import ClipScorer
from irforge.train.rescoring.encoders import EfficientNetLite0
from irforge.train.rescoring.fusion import Fusion, TorchRescorer
from irforge.train.rescoring.pcb import pcb_rescorer
from tests.box_model import box_frame, write_box_model

CLASSES = ["person", "car", "dog"]
SIZES = ClipSizes(
    image=32, patch=8, width=64, layers=2, embed=32, text_width=64, text_layers=2, context=12, vocabulary=130
)
IMAGE = np.random.default_rng(1).integers(0, 256, (160, 200), np.uint8)
BOXES = np.array(
    [[10, 12, 60, 70], [70, 20, 128, 90], [3, 50, 40, 95], [0, 0, 200, 160], [150, 9, 160, 20]], np.float32
)
SCORES = np.array([0.9, 0.8, 0.5, 0.3, 0.04], np.float32)
OWNERS = np.array([0, 1, 2, 2, 0])


def tiny_clip() -> TorchRescorer:
    """A table of what crops look like: names would saturate the softmax of a tower with random weights."""
    torch.manual_seed(0)
    tower = Clip(SIZES).eval().visual
    for name, parameter in tower.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    spec = RescoringSpec(method="clip", classes=CLASSES, columns=[1, -1, 0], alpha=[0.7, 0.7, 0.5], crop_size=32)
    scorer = ClipScorer(tower, Fusion(spec, torch.zeros(3, 32), 100.0))
    with torch.no_grad():
        seen = tower(torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    # Spread the alike features of random weights to about what CLIP's differ by.
    scorer.fusion.table.copy_(F.normalize(F.normalize(seen, dim=1) + 0.05 * torch.randn(3, 32), dim=1))
    return TorchRescorer(spec, scorer)


def random_lite() -> TorchRescorer:
    """EfficientNet-Lite0 with random weights and statistics; two classes have support, one has none."""
    torch.manual_seed(0)
    encoder = EfficientNetLite0()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.3, 0.3)
    encoder.eval()
    with torch.no_grad():
        # Logits around zero: boxes of random weights would all point the same way otherwise.
        seen = encoder.features(torch.from_numpy(padded_frame(IMAGE, 32, 127)).float()).mean(dim=(0, 2, 3))
        encoder._fc.bias.copy_(-encoder._fc.weight @ seen)
    support = [(255 - IMAGE, BOXES[:2], np.array([0, 2])), (IMAGE[::-1].copy(), BOXES[1:3], np.array([2, 0]))]
    return pcb_rescorer(encoder, support, CLASSES)


class Case:
    """A rescorer and its export."""

    def __init__(self, rescorer: TorchRescorer, path: Path) -> None:
        self.rescorer = rescorer
        self.path = path
        self.model: ModelProto = onnx_from_rescorer(rescorer)
        save_model(path, self.model)

    def profile(self) -> Profile:
        """One to twenty boxes, tuned for four; frames of 64 x 64 to 512 x 640."""
        sizes = ((1, (2, 2)), (4, (8, 10)), (20, (16, 20)))
        feeds = [example_feeds(self.rescorer, boxes, sides) for boxes, sides in sizes]
        least, tuned, most = ({name: feed.shape for name, feed in some.items()} for some in feeds)
        return {name: (least[name], tuned[name], most[name]) for name in tuned}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tiny_clip(), tmp_path_factory.mktemp("clip") / "clip.onnx")


@pytest.fixture(scope="module")
def pcb(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(random_lite(), tmp_path_factory.mktemp("pcb") / "pcb.onnx")


@pytest.fixture(params=["clip", pytest.param("pcb", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("colour", [False, True])
def test_the_runtime_gives_the_scores_that_torch_gives(case: Case, colour: bool) -> None:
    image = np.stack([IMAGE, 255 - IMAGE, IMAGE // 2], axis=2) if colour else IMAGE
    expected = case.rescorer.rescore(image, BOXES, SCORES, OWNERS)
    with SessionRescorer(case.rescorer.spec, OrtSession(case.path, threads=1), "companion") as runtime:
        found = runtime.rescore(image, BOXES, SCORES, OWNERS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    judged = np.array([column >= 0 for column in case.rescorer.spec.columns])[OWNERS] & (SCORES > 0.05)
    assert judged.sum() == 3 + (case.rescorer.spec.columns[1] >= 0)
    assert (found[~judged] == SCORES[~judged]).all() and (np.abs(found - SCORES)[judged] > 1e-3).all()


def test_scores_depend_on_the_pixels_of_their_box(case: Case) -> None:
    same = np.tile(SCORES[:1], 4)
    found = case.rescorer.rescore(IMAGE, BOXES[:4], same, np.zeros(4, np.int64))
    assert np.unique(found.round(4)).size == 4


def test_the_file_says_what_it_does(case: Case) -> None:
    assert read_spec(case.path) == case.rescorer.spec
    sides = [side.dim_param or side.dim_value for side in case.model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == (["N", 3, 32, 32] if case.rescorer.spec.method == "clip" else [1, 3, "32*h", "32*w"])
    for initializer in case.model.graph.initializer:
        assert "token" not in initializer.name and "text" not in initializer.name


def test_the_normalisation_is_inside_the_patches(clip: Case) -> None:
    (reader,) = (node for node in clip.model.graph.node if "crops" in node.input and node.op_type != "Shape")
    assert reader.op_type == "Conv" and len(reader.input) == 3


def test_a_graph_that_computes_something_else_is_not_written(clip: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert largest_difference(clip.model, clip.rescorer) < 1e-4
    with torch.no_grad():
        changed = tiny_clip()
        changed.module.fusion.alpha.fill_(0.6)  # type: ignore[union-attr, operator]
    assert largest_difference(clip.model, changed) > 1e-3
    monkeypatch.setattr("irforge.export.companion.largest_difference", lambda *_: float("nan"))
    with pytest.raises(CheckFailed, match="nothing was written"):
        onnx_from_rescorer(tiny_clip())


def test_nvidias_compiler_takes_it(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    report, skipped = compile_part(case.path, case.profile())
    assert report.available and list(skipped) == ["7.5"] and "FP32 GEMM" in skipped["7.5"]
    half = load_model(case.path)
    raise_opset(half, "the encoder")
    cast_to_half(half, fp32_islands(half, compares=True))
    save_model(tmp_path / "half.onnx", half)
    report, skipped = compile_part(tmp_path / "half.onnx", case.profile())
    assert report.available and not skipped
    with SessionRescorer(case.rescorer.spec, OrtSession(tmp_path / "half.onnx", threads=1), "half") as runtime:
        found = runtime.rescore(IMAGE, BOXES, SCORES, OWNERS)
    np.testing.assert_allclose(found, case.rescorer.rescore(IMAGE, BOXES, SCORES, OWNERS), atol=0.02)
    graph = Graph(half)
    types = {node.op_type: graph.dtype(node.output[0]) for node in graph.nodes}
    assert types["ReduceL2"] == types["Where"] == TensorProto.FLOAT
    first = next(node for node in graph.nodes if node.op_type == "Conv")
    assert graph.dtype(first.output[0]) == TensorProto.FLOAT16


@pytest.fixture
def of_targets(clip: Case, tmp_path: Path) -> Path:
    """The companion of the tiny CLIP, for a detector of one class."""
    rescorer = tiny_clip()
    spec = rescorer.spec.model_copy(update={"classes": ["target"], "columns": [1], "alpha": [0.7]})
    model = load_model(clip.path)
    for entry in model.metadata_props:
        entry.value = spec.model_dump_json()
    path = tmp_path / "detector.rescore.onnx"
    save_model(path, model)
    return path


def test_a_deployable_names_its_companion_and_is_judged_by_it(of_targets: Path) -> None:
    primary = write_box_model(of_targets.with_name("detector.onnx"))
    frame = box_frame((10, 12), (40, 30), level=200)
    with load(primary, threads=1, threshold=0.01) as plain:
        before = plain(frame)
    contract = attach(primary, of_targets, limit=7)
    (named,) = contract.companions
    assert named.path == of_targets.name and named.input == "crops" and named.constants["limit"] == 7
    assert contract.provenance.history[-1]["tool"] == "rescore" and read_contract(primary) == contract
    with load(primary, threads=1, threshold=0.01) as judged:
        after = judged(frame)
        assert "re-scored by detector.rescore.onnx" in repr(judged)
        assert judged.last_times.extra["rescore"] > 0
        twice = judged.run_batch([frame, frame])
    rescorer = tiny_clip()
    spec = rescorer.spec.model_copy(update={"classes": ["target"], "columns": [1], "alpha": [0.7]})
    kept = before.scores > 0.05
    expected = 0.7 * before.scores[kept] + 0.3 * probabilities(rescorer, spec, frame, before.boxes[kept])
    # The graph's own table of classes is that of three; only class 0 is asked for, whose alpha and column it is.
    np.testing.assert_allclose(after.scores[after.scores > 0.05], np.sort(expected)[::-1], atol=1e-4)
    assert [one.scores.tolist() for one in twice] == [after.scores.tolist()] * 2
    assert attach(primary, of_targets).companions[0].constants["limit"] == 20


def probabilities(rescorer: TorchRescorer, spec: RescoringSpec, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    scorer = rescorer.module
    assert isinstance(scorer, ClipScorer)
    crops = torch.from_numpy(rescorer.pixels(frame, boxes)["crops"])
    with torch.no_grad():
        features = F.normalize(scorer.visual(crops), dim=1)
        return (100 * features @ scorer.fusion.table.t()).softmax(dim=1)[:, spec.columns[0]].numpy()


def test_companions_that_do_not_belong_are_refused(of_targets: Path, clip: Case, tmp_path: Path) -> None:
    primary = write_box_model(tmp_path / "detector.onnx")
    with pytest.raises(UsageError, match="outside the folder"):
        attach(primary, clip.path)
    stranger = tmp_path / "stranger.onnx"
    stranger.write_bytes(clip.path.read_bytes())
    with pytest.raises(ArtifactError, match="for the classes person, car, dog"):
        attach(primary, stranger)
    with pytest.raises(ArtifactError, match="is no companion"):
        attach(primary, primary)


@pytest.mark.skipif(
    find_spec("instant_clip_tokenizer") is None,
    reason="the tokenizer is not installed (pip install 'irforge[rescore]')",
)
def test_the_command_makes_both_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from typer.testing import CliRunner

    from irforge.cli import application

    weights = tmp_path / "clip.safetensors"
    sizes = ClipSizes(image=16, patch=8, width=64, layers=1, embed=16, text_width=64, text_layers=1)
    save_file({name: t.contiguous() for name, t in Clip(sizes).state_dict().items()}, weights)
    primary = write_box_model(tmp_path / "plain.onnx")
    arguments = ["rescore", str(primary), "-o", str(tmp_path / "out.onnx"), "--by", "clip", "--weights", str(weights)]
    arguments += ["--prompt", "a thermal photo of {}", "--alpha", "0.9", "--limit", "5"]
    outcome = CliRunner().invoke(application("rescore"), arguments)
    assert outcome.exit_code == 0, outcome.output
    (named,) = read_contract(tmp_path / "out.onnx").companions
    assert named.path == "out.rescore.onnx" and named.constants["limit"] == 5 and named.constants["alpha"] == [0.9]
    assert named.constants["source"]["prompts"] == ["a thermal photo of target", "a thermal photo of background"]
    assert not read_contract(primary).companions
    with load(tmp_path / "out.onnx", threads=1) as detector:
        assert len(detector(box_frame((10, 12))))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ([], UsageError, "CLIP needs a checkpoint"),
        (["--weights", "none.safetensors"], InputError, "there is no checkpoint 'none.safetensors'"),
        (["--weights", "ViT-B-32.pt"], InputError, "there is no checkpoint 'ViT-B-32.pt'"),
    ],
)
def test_a_missing_clip_is_an_error_that_names_where_to_get_one(
    tmp_path: Path, arguments: list[str], error: type[IrforgeError], words: str
) -> None:
    from typer.testing import CliRunner

    from irforge.cli import application

    primary = write_box_model(tmp_path / "plain.onnx")
    command = ["rescore", str(primary), "-o", str(tmp_path / "out.onnx"), "--by", "clip", *arguments]
    outcome = CliRunner().invoke(application("rescore"), command)
    assert isinstance(outcome.exception, error)
    assert words in outcome.exception.line and "github.com/openai/CLIP" in outcome.exception.line
    assert {path.name for path in tmp_path.iterdir()} == {"plain.onnx"}
