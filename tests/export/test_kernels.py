"""What rewriting gains for networks of several scales, by the kernels that NVIDIA's compiler makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.artifact import load_model, read_contract, save_model
from irforge.calib.half import half_model
from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, PadToMultiple, Provenance, TensorSpec
from irforge.errors import UsageError
from irforge.export.convert import contract_for, onnx_from_torch
from irforge.export.summary import Summary
from irforge.export.unroll import unroll_model
from irforge.export.verify import difference_of_models, largest_difference, sample_frames
from irforge.runtime.engines import compile_gate
from irforge.train.detectors.itd.blocks import Exchange, WeightingBlock, conv_bn, separable
from irforge.train.detectors.registry import find_detector

WIDTHS = (16, 32)
NEW = {
    "merge_channel_gates",
    "pool_before_moves",
    "merge_parallel_convolutions",
    "merge_summed_convolutions",
    "spell_out_mish",
    "pad_hidden_channels",
}


class TwoScales(nn.Module):
    """A stage of ITD on two scales, with heads that read the finer one."""

    stride = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(*conv_bn(1, WIDTHS[0], 3, stride=2), nn.Mish())
        self.coarser = nn.Sequential(*separable(*WIDTHS, stride=2), nn.ReLU())
        self.blocks = nn.Sequential(*(WeightingBlock(WIDTHS) for _ in range(4)))
        self.exchange = Exchange(WIDTHS)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(WIDTHS[0], 8, 3, padding=1), nn.Mish(), nn.Conv2d(8, 1, 1)) for _ in range(2)
        )
        self.train()(torch.randint(0, 255, (2, 1, 32, 32)))
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.stem((frames.float() - 128) / 64)
        fine, _ = self.exchange(self.blocks([fine, self.coarser(fine)]))
        one, other = (head(fine) for head in self.heads)
        mask: Tensor = torch.sigmoid(F.interpolate(one * other, scale_factor=2.0, mode="bilinear", align_corners=True))
        return mask


def _contract() -> Contract:
    spec = InputSpec(height=64, width=96, fit=PadToMultiple(multiple=4), normalization=Normalization(mean=128, std=64))
    mask = TensorSpec(name="mask", dtype="float32", shape=["N", 1, "H", "W"], meaning="probability")
    output = OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[mask])
    return Contract(input=spec, output=output, provenance=Provenance(detector="two-scales"))


@dataclass(frozen=True)
class Forms:
    """Files: as torch exports it, as we do, and that unrolled."""

    plain: Path
    rewritten: Path
    unrolled: Path
    counts: dict[str, int]

    def __iter__(self) -> Iterator[Path]:
        return iter((self.plain, self.rewritten, self.unrolled))


@pytest.fixture(scope="module")
def network() -> TwoScales:
    return TwoScales()


@pytest.fixture(scope="module")
def forms(network: TwoScales, tmp_path_factory: pytest.TempPathFactory) -> Forms:
    return _forms(network, _contract(), tmp_path_factory.mktemp("forms"))


def _forms(module: nn.Module, contract: Contract, folder: Path) -> Forms:
    files = [folder / f"{name}.onnx" for name in ("plain", "rewritten", "unrolled")]
    save_model(files[0], onnx_from_torch(module, contract, target=None)[0])
    rewritten, counts = onnx_from_torch(module, contract)
    save_model(files[1], rewritten)
    unroll_model(files[1], files[2])
    return Forms(*files, counts)


def test_every_form_computes_what_torch_computes(network: TwoScales, forms: Forms) -> None:
    for path in forms:
        assert largest_difference(load_model(path), network, _contract())["mask"] < 1e-5


def test_a_plain_export_is_what_torch_wrote(forms: Forms) -> None:
    """Its activations, its gates one by one, and the normalisation before the first convolution."""
    kinds = Counter(node.op_type for node in load_model(forms.plain).graph.node)
    assert (kinds["Mish"], kinds["ReduceMean"], kinds["Div"]) == (3, 8, 1)


def test_all_rewrites_of_a_stage_are_found(forms: Forms) -> None:
    assert {name: forms.counts[name] for name in NEW} == {
        "merge_channel_gates": 8,
        "pool_before_moves": 4,
        # Two convolutions behind one, and two 1x1 behind these.
        "merge_parallel_convolutions": 2,
        "merge_summed_convolutions": 0,
        "spell_out_mish": 2,
        "pad_hidden_channels": 4,
    }


def test_two_fifths_of_the_kernels_go(forms: Forms) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    plain, rewritten, unrolled = (compile_gate(path, ("8.9",)).proofs[0] for path in forms)
    assert unrolled.kernels < rewritten.kernels < plain.kernels
    assert unrolled.kernels <= 0.6 * plain.kernels
    traffic = [proof.bytes_read + proof.bytes_written for proof in (plain, rewritten, unrolled)]
    assert traffic[2] < traffic[1] < traffic[0]


def test_an_fp16_file_is_unrolled_too(forms: Forms, tmp_path: Path) -> None:
    half_model(forms.rewritten, tmp_path / "half.onnx")
    counts = unroll_model(tmp_path / "half.onnx", tmp_path / "unrolled.onnx")
    assert counts == {"repeat_by_broadcast": 5, "pool_by_reduction": 5, "filter_by_taps": 8}
    with pytest.raises(UsageError, match="nothing to spell out"):
        unroll_model(tmp_path / "unrolled.onnx", tmp_path / "again.onnx")
    assert read_contract(tmp_path / "unrolled.onnx").provenance.history[-1]["tool"] == "unroll"


def test_any_size_and_number_of_frames_stays_possible(network: TwoScales, tmp_path: Path) -> None:
    contract = contract_for(_contract(), TwoScales.stride, dynamic_size=True)
    model, counts = onnx_from_torch(network, contract)
    assert {name: counts[name] for name in NEW} == {name: counts[name] for name in NEW} | {"merge_channel_gates": 8}
    save_model(tmp_path / "model.onnx", model)
    # Blocks of pixels need known sides, filters do not.
    unrolled = unroll_model(tmp_path / "model.onnx", tmp_path / "unrolled.onnx")
    assert unrolled == {"repeat_by_broadcast": 0, "pool_by_reduction": 0, "filter_by_taps": 8}
    for path in (tmp_path / "model.onnx", tmp_path / "unrolled.onnx"):
        assert largest_difference(load_model(path), network, contract)["mask"] < 1e-5


def test_mshnet_has_nothing_of_the_kind(exported: tuple[Path, Summary], tmp_path: Path) -> None:
    assert not NEW & set(exported[1].rewrites)
    with pytest.raises(UsageError, match="nothing to spell out"):
        unroll_model(exported[0], tmp_path / "unrolled.onnx")


@pytest.mark.slow
def test_itd_takes_half_of_its_kernels(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    torch.manual_seed(0)
    detector = find_detector("itd")
    spec = detector.published_input({})
    contract = Contract(input=spec, output=detector.output(0.5), provenance=Provenance(detector="itd"))
    network = detector.build(in_channels=1, init="kaiming")
    deployable = detector.deployable(network, spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        deployable.train()(torch.from_numpy(sample_frames(contract, *spec.size)))
        # Rounding decides where the peaks of the constant frame are: they are to count as faint.
        network.heat[2].bias.fill_(-6)
    forms = _forms(deployable.eval(), contract, tmp_path)
    assert forms.counts["merge_channel_gates"] == 48
    difference_of_models(load_model(forms.plain), load_model(forms.unrolled), contract)
    for convert in (False, True):
        plain, unrolled = forms.plain, forms.unrolled
        if convert:
            half_model(forms.plain, plain := tmp_path / "plain.fp16.onnx")
            half_model(forms.rewritten, tmp_path / "rewritten.fp16.onnx")
            unroll_model(tmp_path / "rewritten.fp16.onnx", unrolled := tmp_path / "unrolled.fp16.onnx")
        before, after = (compile_gate(path, ("8.9",)).proofs[0].kernels for path in (plain, unrolled))
        assert 2 * after <= before
