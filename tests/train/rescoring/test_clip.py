"""Our CLIP is the published one: parameter counts, names, sizes read off a checkpoint, and torch's own attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from irforge.errors import ArtifactError, InputError
from irforge.train.rescoring.clip import Attention, Clip, ClipSizes, load_clip

TINY = ClipSizes(
    image=32, patch=8, width=64, layers=2, embed=32, text_width=64, text_layers=2, context=12, vocabulary=50
)


@pytest.fixture
def tiny() -> Clip:
    torch.manual_seed(0)
    return Clip(TINY).eval()


@pytest.mark.parametrize(
    ("sizes", "total", "visual"),
    [
        (ClipSizes(), 427_944_193, 304_293_888),
        (ClipSizes(224, 32, 768, 12, 512, 512), 151_277_313, 87_849_216),
        (ClipSizes(224, 16, 768, 12, 512, 512), 149_620_737, None),
    ],
)
def test_parameter_counts_are_the_published_ones(sizes: ClipSizes, total: int, visual: int | None) -> None:
    with torch.device("meta"):
        clip = Clip(sizes)
    assert sum(p.numel() for p in clip.parameters()) == total
    if visual:
        assert sum(p.numel() for p in clip.visual.parameters()) == visual


def test_names_are_openais(tiny: Clip) -> None:
    block = ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    in_block = {f"{part}.{kind}" for part in block for kind in ("weight", "bias")}
    in_block |= {"attn.in_proj_weight", "attn.in_proj_bias"}
    expected = {"visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding", "visual.proj"}
    expected |= {
        f"{norm}.{kind}" for norm in ("visual.ln_pre", "visual.ln_post", "ln_final") for kind in ("weight", "bias")
    }
    expected |= {"token_embedding.weight", "positional_embedding", "text_projection", "logit_scale"}
    for tower in ("visual.transformer", "transformer"):
        expected |= {f"{tower}.resblocks.{k}.{name}" for k in range(2) for name in in_block}
    assert set(tiny.state_dict()) == expected


def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(32, 4, causal=True), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 32)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=later, need_weights=False)[0], atol=1e-6, rtol=1e-5)


def test_text_is_read_at_its_end_and_not_beyond(tiny: Clip) -> None:
    tokens = torch.tensor([[48, 3, 9, 49, 0, 0, 0, 0, 0, 0, 0, 0]])
    beyond = tokens.clone()
    beyond[0, 6] = 7
    changed = tokens.clone()
    changed[0, 2] = 7
    with torch.no_grad():
        feature = tiny.encode_text(tokens)
        torch.testing.assert_close(tiny.encode_text(beyond), feature)
        assert (tiny.encode_text(changed) - feature).abs().max() > 1e-3


def test_a_checkpoint_tells_its_sizes(tiny: Clip, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    half = {name: t.half().contiguous() for name, t in tiny.state_dict().items()}
    save_file({**half, "input_resolution": torch.tensor(32), "context_length": torch.tensor(12)}, path)
    loaded = load_clip(path)
    assert loaded.sizes == TINY
    crops = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.visual(crops), tiny.visual(crops), atol=5e-3, rtol=5e-3)


def test_pickles_and_programs_need_trust(tiny: Clip, tmp_path: Path) -> None:
    pickled, program = tmp_path / "tiny.pt", tmp_path / "program.pt"
    torch.save({"state_dict": {f"module.{name}": t for name, t in tiny.state_dict().items()}}, pickled)
    # OpenAI's files are TorchScript archives of the whole model; only its parameters' names matter here.
    torch.jit.save(torch.jit.script(_Holder(tiny)), program)
    for path in (pickled, program):
        with pytest.raises(ArtifactError, match="run code"):
            load_clip(path)
        for name, tensor in load_clip(path, trust=True).state_dict().items():
            torch.testing.assert_close(tensor, tiny.state_dict()[name])


def test_a_missing_checkpoint_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint '.*ViT\.pt'.*github\.com/openai/CLIP.*open_clip") as fault:
        load_clip(tmp_path / "ViT.pt")
    assert "\n" not in fault.value.line


def test_another_networks_weights_are_refused(tmp_path: Path, tiny: Clip) -> None:
    other, cut = tmp_path / "other.safetensors", tmp_path / "cut.safetensors"
    save_file({"conv1.weight": torch.zeros(3)}, other)
    with pytest.raises(ArtifactError, match="no CLIP with a ViT"):
        load_clip(other)
    weights = {name: t.clone() for name, t in tiny.state_dict().items() if name != "visual.ln_post.bias"}
    save_file(weights, cut)
    with pytest.raises(ArtifactError, match=r"do not fit.*visual\.ln_post\.bias"):
        load_clip(cut)
    with pytest.raises(ArtifactError, match="heads of 80"):
        load_clip(cut, head_width=80)


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_damaged_files_are_one_clear_line(name: str, tiny: Clip, tmp_path: Path) -> None:
    path = tmp_path / name
    weights = {key: t.contiguous() for key, t in tiny.state_dict().items()}
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ArtifactError, match=r"damaged|no readable"):
        load_clip(path, trust=True)


class _Holder(nn.Module):
    """A module that TorchScript takes, with another's parameters under their names."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        for name, part in clip.named_children():
            self.add_module(name, _Holder(part))
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self) -> int:
        return 0
