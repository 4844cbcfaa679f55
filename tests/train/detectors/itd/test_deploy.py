"""ITD in use: peaks, boxes in frame pixels, the contract, weights, and the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from irforge.contract import Contract, PadToMultiple, Provenance
from irforge.detections import decode as decode_on_host
from irforge.export.convert import onnx_from_part, onnx_from_torch
from irforge.frames import prepare
from irforge.train.detectors.itd import deploy
from irforge.train.detectors.itd.decode import decode
from irforge.train.detectors.itd.deploy import ITD, ItdDeployable
from irforge.train.detectors.itd.encode import encode
from irforge.train.detectors.itd.loss import ItdLoss
from irforge.train.detectors.itd.network import ITDNet, Maps
from irforge.train.detectors.itd.reference import ItdReference
from irforge.train.detectors.registry import find_detector
from irforge.train.ops.peaks import NOTHING, is_peak, top_peaks
from irforge.train.recipe import read_recipe

LOW = -9.0


def heat(*cells: tuple[int, int, float], size: tuple[int, int] = (16, 24)) -> Tensor:
    """Logits that are low but for cells (row, column, logit)."""
    plane = torch.full((1, 1, *size), LOW)
    # A slope, so that the low ground has no plateau; it falls, so that its only peak is the first cell.
    plane -= torch.arange(size[0] * size[1]).view(1, 1, *size) * 1e-3
    for row, column, logit in cells:
        plane[0, 0, row, column] = logit
    return plane


def quantised(seed: int, shape: tuple[int, ...] = (2, 1, 16, 24)) -> Tensor:
    """Rough maps of few levels, as low precision makes them."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 6, shape).astype(np.float32))


def peaks_by_hand(plane: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for y, x in np.ndindex(plane.shape):
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
        near = [(r, c) for r, c in around if 0 <= r < plane.shape[0] and 0 <= c < plane.shape[1]]
        if all(plane[y, x] > plane[n] if n < (y, x) else plane[y, x] >= plane[n] for n in near):
            found.append((y, x))
    return found


def trained(seed: int = 0, **options: object) -> ITDNet:
    """A network that finds many things in noise: its statistics are those of noise, its heads say something."""
    torch.manual_seed(seed)
    network = ITDNet(in_channels=1, init="kaiming", **options).train()
    for bn in network.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.momentum = 1.0
    with torch.no_grad():
        network(deployable(network).normalise(torch.from_numpy(noise(2, 1, 64, 96, seed=1))))
        for last in (network.heat[-1], network.ltrb[-1], network.offset[-1]):
            nn.init.normal_(last.weight, std=0.3)
            nn.init.zeros_(last.bias)
        nn.init.constant_(network.ltrb[-1].bias, 2)
    return network.eval()


def deployable(network: ITDNet) -> ItdDeployable:
    result = ITD.deployable(network, ITD.published_input({}))
    assert isinstance(result, ItdDeployable)
    return result


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 48, shape).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_peaks_are_those_of_the_written_rule(seed: int) -> None:
    scores = quantised(seed)
    for plane, found in zip(scores[:, 0].numpy(), is_peak(scores)[:, 0].numpy(), strict=True):
        assert [tuple(cell) for cell in np.argwhere(found)] == peaks_by_hand(plane)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [5, 100])
def test_the_best_peaks_are_those_of_a_full_sort(seed: int, k: int) -> None:
    scores = quantised(seed) + torch.rand(2, 1, 16, 24) * 1e-3 * (seed > 0)
    best, cells = top_peaks(scores, k)
    for n, plane in enumerate(scores[:, 0].numpy()):
        by_hand = peaks_by_hand(plane)
        expected = sorted((plane[cell] for cell in by_hand), reverse=True)[:k]
        count = len(expected)
        assert best[n, :count].tolist() == expected
        assert (best[n, count:] == NOTHING).all() and not cells[n, count:].any()
        found = [divmod(int(c), 24) for c in cells[n, :count]]
        assert len(set(found)) == count and set(found) <= set(by_hand)
        assert [plane[cell] for cell in found] == expected


def test_a_plateau_is_found_once() -> None:
    scores = heat(*((row, column, 2.0) for row in (4, 5, 6) for column in (7, 8, 9)))
    assert np.argwhere(is_peak(scores)[0, 0].numpy()).tolist() == [[0, 0], [4, 7]]


def test_boxes_are_in_pixels_and_empty_slots_are_empty() -> None:
    logits = heat((6, 5, 3.0), (10, 20, 1.0))
    ltrb = torch.tensor([2.65, 2.30, 4.35, 1.70]).view(1, 4, 1, 1).expand(1, 4, 16, 24)
    offset = torch.tensor([0.65, 0.30]).view(1, 2, 1, 1).expand(1, 2, 16, 24)
    boxes, scores, classes = decode(Maps(logits, ltrb, offset), 5)
    assert boxes[0, :2].numpy() == pytest.approx(np.array([[6, 8, 20, 16], [36, 16, 50, 24]]), abs=1e-5)
    assert scores[0, :2].tolist() == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1))])
    assert 0 < scores[0, 2] < 2e-4 and not scores[0, 3:].any() and not boxes[0, 3:].any()
    assert classes.dtype == torch.int64 and not classes.any()


def test_sure_peaks_stay_apart_where_their_probabilities_are_equal() -> None:
    logits = heat((6, 5, 20.0), (6, 6, 21.0))
    assert float(logits[0, 0, 6, 5].sigmoid()) == float(logits[0, 0, 6, 6].sigmoid()) == 1
    assert top_peaks(logits, 1)[1].tolist() == [[6 * 24 + 6]]
    assert int(is_peak(logits).sum()) == 2


def test_what_encoding_wrote_decoding_reads() -> None:
    rng = np.random.default_rng(0)
    corner = np.array([[5, 9], [40, 12], [20, 40], [50, 50]], np.float32) + rng.uniform(0, 1, (4, 2)).astype(np.float32)
    truth = np.concatenate([corner, corner + rng.uniform(2, 12, (4, 2)).astype(np.float32)], axis=1)
    maps = {name: torch.from_numpy(m)[None] for name, m in encode(rng.normal(40, 3, (64, 64)), truth).items()}
    boxes, scores, _ = decode(Maps(maps["heat"].clamp(1e-6, 1 - 1e-6).logit(), maps["ltrb"], maps["offset"]), 4)
    order = np.lexsort(boxes[0].numpy().T[::-1])
    assert boxes[0].numpy()[order] == pytest.approx(truth[np.lexsort(truth.T[::-1])], abs=1e-4)
    assert (scores > 0.999).all()


def test_half_precision_maps_are_decoded_in_float32() -> None:
    maps = Maps(*(torch.randn(1, c, 16, 24).half() for c in (1, 4, 2)))
    boxes, scores, _ = decode(maps, 10)
    assert boxes.dtype == scores.dtype == torch.float32


@pytest.mark.parametrize("fuse", ["published", "clean"])
@torch.no_grad()
def test_the_reference_form_finds_the_same(fuse: str) -> None:
    ours = deployable(trained(fuse=fuse))
    frames = torch.from_numpy(noise(2, 1, 64, 96))
    (boxes, scores, classes), (plain_boxes, plain_scores, plain_classes) = ours(frames), ItdReference(ours)(frames)
    found = scores > 0
    assert int(found.sum()) > 20 and torch.equal(classes, plain_classes)
    torch.testing.assert_close(scores, plain_scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(boxes[found], plain_boxes[found], rtol=0, atol=1e-2)


def test_detections_reach_the_host_through_the_contract() -> None:
    contract = Contract(
        input=ITD.published_input({}).model_copy(update={"height": 64, "width": 96, "fit": PadToMultiple(multiple=16)}),
        output=ITD.output(0.2),
        provenance=Provenance(detector="itd"),
    )
    tensor, geometry = prepare(noise(50, 90), contract.input)
    with torch.no_grad():
        outputs = deployable(trained())(torch.from_numpy(tensor))
    names = [spec.name for spec in contract.output.tensors]
    found = decode_on_host(dict(zip(names, (o.numpy() for o in outputs), strict=True)), contract, geometry)
    assert len(found) and (found.scores > 0.2).all()
    assert (found.boxes >= 0).all() and (found.boxes[:, 2] <= 90).all() and (found.boxes[:, 3] <= 50).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_own_weights_are_recognised(channels: int) -> None:
    network = ITD.build(in_channels=channels)
    options = ITD.options_of(network.state_dict())
    assert options == {"in_channels": channels}
    ITD.build(**options).load_state_dict(network.state_dict())
    assert ITD.options_of({"other": torch.zeros(1)}) is None


def test_the_published_recipe_suits_the_detector() -> None:
    recipe = read_recipe(Path(deploy.__file__).with_name("recipe.yaml"))
    assert find_detector(recipe.detector) is ITD
    assert sum(p.numel() for p in ITD.build(**recipe.network).parameters()) == 1_173_679
    assert ITD.loss(**recipe.loss) == ItdLoss(legacy_half_pixel=True)
    assert (recipe.input.mean, recipe.input.std, recipe.epochs) == (deploy.MEAN, deploy.STD, 140)


def test_a_network_of_three_channels_gets_the_frame_in_each() -> None:
    result = deployable(ITD.build(in_channels=3))
    with torch.no_grad():
        assert [tuple(o.shape) for o in result(torch.zeros(2, 1, 32, 32))] == [(2, 100, 4), (2, 100), (2, 100)]


class Decode(nn.Module):
    def forward(self, logits: Tensor, ltrb: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return decode(Maps(logits, ltrb, offset), 100)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free size"])
def test_the_exported_decoder_agrees_on_plateaus_and_small_maps(free: bool) -> None:
    example = {"logits": quantised(0), "ltrb": torch.rand(2, 4, 16, 24), "offset": torch.rand(2, 2, 16, 24)}
    batch = torch.export.Dim("N")
    sides = {2: 8 * torch.export.Dim("h", min=1, max=64), 3: 8 * torch.export.Dim("w", min=1, max=64)} if free else {}
    model, _ = onnx_from_part(
        Decode(), example, ["boxes", "scores", "classes"], "decode", free=tuple({0: batch, **sides} for _ in example)
    )
    assert not {"NonZero", "Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in ((16, 24), (8, 8), (64, 48)) if free else ((16, 24),):
        maps = Maps(quantised(3, (2, 1, *size)), torch.rand(2, 4, *size), torch.rand(2, 2, *size))
        feeds = {name: m.numpy() for name, m in zip(example, maps, strict=True)}
        boxes, scores, classes = session.run(None, feeds)
        assert not classes.any()
        for n in range(2):
            expected = boxes_by_hand(*(m[n].numpy() for m in maps))[:100]
            count = len(expected)
            assert scores[n, :count] == pytest.approx(expected[:, 0], abs=1e-6) and not scores[n, count:].any()
            assert boxes[n, :count] == pytest.approx(expected[:, 1:], abs=1e-4) and not boxes[n, count:].any()


def boxes_by_hand(logits: np.ndarray, ltrb: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Score and box of each peak, highest first, equal ones in raster order."""
    rows = []
    for y, x in sorted(peaks_by_hand(logits[0]), key=lambda cell: -logits[0][cell]):
        centre = np.array([x, y]) + offset[:, y, x]
        reach = ltrb[:, y, x]
        rows.append([1 / (1 + np.exp(-logits[0, y, x])), *(centre - reach[:2]) * 2, *(centre + reach[2:]) * 2])
    return np.array(rows)


@pytest.mark.slow
def test_the_exported_detector_agrees(tmp_path: Path) -> None:
    ours = deployable(trained())
    spec = ITD.published_input({}).model_copy(update={"height": 64, "width": 96})
    contract = Contract(input=spec, output=ITD.output(0.5), provenance=Provenance(detector="itd"))
    model, _ = onnx_from_torch(ours, contract)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    frames = noise(2, 1, 64, 96)
    boxes, scores, classes = session.run(None, {"frames": frames})
    with torch.no_grad():
        expected = [o.numpy() for o in ours(torch.from_numpy(frames))]
    found = scores > 0
    assert scores == pytest.approx(expected[1], abs=1e-4)
    assert boxes[found] == pytest.approx(expected[0][found], abs=0.05)
    assert np.array_equal(classes, expected[2])
