"""ACM, ALCNet and DNA-Net have the published sizes, and go the way of every detector: graph, FP16, INT8, engine."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.artifact import read_contract, save_model
from irforge.calib.collect import collect_ranges
from irforge.calib.half import half_model
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import save_ranges
from irforge.contract import Contract, InputSpec, Normalization, PadToMultiple, Provenance, Range
from irforge.errors import ExportError, UsageError
from irforge.export.convert import contract_for, onnx_from_torch
from irforge.export.verify import TOLERANCE, largest_difference
from irforge.runtime.backends.ort import OrtSession
from irforge.runtime.engines import compile_gate
from irforge.train.detectors.acm.network import ACMUNet, acm
from irforge.train.detectors.alcnet.network import ALCNet, local_contrast
from irforge.train.detectors.dnanet.network import DNANet, halved
from irforge.train.detectors.masks import MaskEntry
from irforge.train.detectors.registry import find_detector
from tests.train.detectors.formula import formula_input, with_formula_weights

SIZE = (80, 96)
FORMS = {
    "acm-fpn": ("acm", {"in_channels": 1}),
    "acm-unet": ("acm", {"in_channels": 1, "decoder": "unet", "blocks": 2}),
    "alcnet": ("alcnet", {"in_channels": 1, "blocks": 2}),
    "dna-net": ("dna-net", {"in_channels": 1, "backbone": "resnet-10"}),
}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def entry(form: str) -> MaskEntry:
    found = find_detector(FORMS[form][0])
    assert isinstance(found, MaskEntry)
    return found


def drawn(form: str) -> nn.Module:
    """A network in eval mode whose statistics are those of noise, so that its mask spans the probabilities."""
    torch.manual_seed(3)
    network = entry(form).build(**FORMS[form][1])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(2, 1, 96, 96))
    return network.eval()


# ---------------------------------------------------------------- what was published


def test_sizes_are_those_of_the_published_networks() -> None:
    """BasicIRSTD counts gray inputs, and of ACM the U-Net of three blocks; the others are those of public weights."""
    assert count(ACMUNet(1, blocks=3, reduce=False)) == 397_823
    assert count(DNANet(1)) == 4_696_568
    assert count(acm()) == 387_187
    assert count(acm("unet")) == 519_843
    assert count(ALCNet()) == 372_579


@pytest.mark.parametrize(("form", "heads"), [("acm-fpn", 0), ("acm-unet", 0), ("alcnet", 0), ("dna-net", 3)])
@torch.no_grad()
def test_every_output_is_as_large_as_the_frame(form: str, heads: int) -> None:
    found, final = drawn(form)(torch.randn(2, 1, 80, 112))
    assert [tuple(logits.shape) for logits in (*found, final)] == [(2, 1, 80, 112)] * (heads + 1)


@pytest.mark.parametrize("form", FORMS)
def test_options_are_found_again_in_the_weights(form: str) -> None:
    detector = entry(form)
    network = detector.build(**FORMS[form][1])
    options = detector.options_of(network.state_dict())
    assert options is not None and FORMS[form][1].items() <= options.items()
    again = detector.build(**options)
    again.load_state_dict(network.state_dict())
    others = [find_detector(name) for name in ("mshnet", "acm", "alcnet", "dna-net", "oscar") if name != detector.name]
    assert [other.options_of(network.state_dict()) for other in others] == [None] * 4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("acm", {"fusion": "both"}),
        ("acm", {"decoder": "fcn"}),
        ("acm", {"blocks": 0}),
        ("acm", {"reduce": False}),
        ("alcnet", {"blocks": 0}),
        ("dna-net", {"backbone": "vgg-10"}),
        ("dna-net", {"widths": 3}),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        find_detector(name).build(**options)


# ---------------------------------------------------------------- what they compute


def test_local_contrast_is_the_least_product_of_opposite_differences() -> None:
    """A pixel brighter than all around: 40 squared. An edge has none."""
    x = torch.zeros(1, 1, 40, 40)
    x[..., 20, 20] = 40
    found = local_contrast(x)
    assert found[0, 0, 20, 20] == 1600 and (found > 0).sum() == 1
    step = torch.zeros(1, 1, 40, 40)
    step[..., 20:] = 9
    assert local_contrast(step)[0, 0, 20, 18:22].abs().max() == 0
    rolled = torch.roll(x, (9, 31), (2, 3))
    assert torch.equal(local_contrast(rolled), torch.roll(found, (9, 31), (2, 3)))


@pytest.mark.parametrize("size", [(32, 32), (68, 80), (80, 68)])
def test_frames_around_which_a_shift_goes_are_refused(size: tuple[int, int]) -> None:
    network = ALCNet(1, blocks=1).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 72, 72))[1].shape == (1, 1, 72, 72)
        with pytest.raises(UsageError, match=r"\d+x\d+ does not suit ALCNet.*at least 72"):
            network(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(("side", "dynamic"), [(64, False), (80, True)])
def test_graphs_of_too_small_frames_are_refused(side: int, dynamic: bool) -> None:
    detector = entry("alcnet")
    spec = InputSpec(height=side, width=side, fit=PadToMultiple(multiple=4), normalization=Normalization(mean=0, std=1))
    deployable = detector.deployable(ALCNet(1, blocks=1), spec).eval()
    contract = Contract(input=spec, output=detector.output(0.5), provenance=Provenance(detector="alcnet"))
    with pytest.raises(ExportError, match=r"ALCNet.*72"):
        onnx_from_torch(deployable, contract_for(contract, deployable.stride, dynamic_size=dynamic))


def test_halving_keeps_corners_and_skips_pixels() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    found = halved(x)[0, 0]
    assert [float(found[r, c]) for r, c in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == pytest.approx([0, 7, 56, 63])
    assert float(found[0, 1]) == pytest.approx(7 / 3)


@torch.no_grad()
def test_each_node_of_the_nest_reads_the_published_maps_in_the_published_order() -> None:
    """The wiring written out node by node, with the network's own parts."""
    network = DNANet(3, "resnet-10")
    with_formula_weights(network)

    def part(name: str, *read: Tensor) -> Tensor:
        result: Tensor = network.get_submodule(name)(torch.cat(read, 1))
        return result

    def up(x: Tensor, factor: int = 2) -> Tensor:
        return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=True)

    x = formula_input()
    x00 = part("conv0_0", x)
    x10 = part("conv1_0", F.max_pool2d(x00, 2))
    x20 = part("conv2_0", F.max_pool2d(x10, 2))
    x30 = part("conv3_0", F.max_pool2d(x20, 2))
    x40 = part("conv4_0", F.max_pool2d(x30, 2))
    x01 = part("conv0_1", x00, up(x10))
    x11 = part("conv1_1", x10, up(x20), halved(x01))
    x21 = part("conv2_1", x20, up(x30), halved(x11))
    x31 = part("conv3_1", x30, up(x40), halved(x21))
    x02 = part("conv0_2", x00, x01, up(x11))
    x12 = part("conv1_2", x10, x11, up(x21), halved(x02))
    x22 = part("conv2_2", x20, x21, up(x31), halved(x12))
    x03 = part("conv0_3", x00, x01, x02, up(x12))
    x13 = part("conv1_3", x10, x11, x12, up(x22), halved(x03))
    x04 = part("conv0_4", x00, x01, x02, x03, up(x13))
    scales = [up(part(f"conv0_{k}_1x1", node), 2**k) for k, node in ((4, x40), (3, x31), (2, x22), (1, x13))]
    expected = [part("final1", x01), part("final2", x02), part("final3", x03)]
    expected.append(part("final4", part("conv0_4_final", *scales, x04)))
    heads, final = network(x)
    assert final.std() > 1e-5
    for found, wanted in zip((*heads, final), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- what they become


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(1)
    for index in range(4):
        frame = cv2.GaussianBlur(random.normal(0, 60, SIZE), (0, 0), 4) * 4 + 100
        row, column = random.integers(4, 70, 2)
        frame[row : row + 3, column : column + 3] += 100
        cv2.imwrite(str(folder / f"{index}.png"), np.clip(frame, 0, 255).astype(np.uint8))
    return folder


def exported(form: str, path: Path) -> Path:
    """The FP32 graph of a network; it computes what torch does."""
    detector, (height, width) = entry(form), SIZE
    levels = Normalization(mean=100, std=30)
    spec = InputSpec(height=height, width=width, fit=PadToMultiple(multiple=16), normalization=levels)
    network = drawn(form)
    deployable = detector.deployable(network, spec).eval()
    provenance = Provenance(detector=detector.name, network=FORMS[form][1])
    contract = contract_for(Contract(input=spec, output=detector.output(0.5), provenance=provenance), deployable.stride)
    model, _ = onnx_from_torch(deployable, contract)
    assert largest_difference(model, deployable, contract)["mask"] <= TOLERANCE
    save_model(path, model)
    return path


@pytest.mark.parametrize("form", ["acm-fpn", "acm-unet", "alcnet", pytest.param("dna-net", marks=pytest.mark.slow)])
def test_graphs_of_every_precision_pass_the_compiler(form: str, tmp_path: Path, frames: Path) -> None:
    single = exported(form, tmp_path / "single.onnx")
    half_model(single, tmp_path / "half.onnx")
    save_ranges(tmp_path / "ranges.json", collect_ranges(single, str(frames), threads=1))
    quantize_model(single, tmp_path / "int8.onnx", tmp_path / "ranges.json")
    assert read_contract(tmp_path / "int8.onnx").provenance.detector == entry(form).name
    some = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[None] for path in sorted(frames.iterdir())])
    masks = []
    for name in ("single", "half", "int8"):
        with OrtSession(tmp_path / f"{name}.onnx") as session:
            masks.append(session.run({"frames": some})["mask"])
    spread = np.ptp(masks[0])
    assert spread > 0.01
    assert np.abs(masks[1] - masks[0]).max() < 0.05 * spread
    assert np.abs(masks[2] - masks[0]).mean() < 0.1 * spread
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    for name in ("single", "half", "int8"):
        assert compile_gate(tmp_path / f"{name}.onnx", ("8.9",)).proofs[0].kernels > 0


@pytest.mark.parametrize("form", ["acm-fpn", "alcnet", pytest.param("dna-net", marks=pytest.mark.slow)])
def test_any_size_stays_possible(form: str) -> None:
    detector = entry(form)
    spec = InputSpec(height=96, width=96, fit=PadToMultiple(multiple=16), normalization=Normalization(mean=100, std=30))
    deployable = detector.deployable(drawn(form), spec).eval()
    provenance = Provenance(detector=detector.name, network=FORMS[form][1])
    fixed = Contract(input=spec, output=detector.output(0.5), provenance=provenance)
    contract = contract_for(fixed, deployable.stride, dynamic_size=True, smallest=deployable.smallest)
    assert isinstance(contract.input.height, Range)
    assert contract.input.height.min == {"alcnet": 72}.get(form, 32)
    model, _ = onnx_from_torch(deployable, contract)
    assert largest_difference(model, deployable, contract)["mask"] <= TOLERANCE
