"""Weights of image encoders: files that users have, for no encoder's weights come along with this package."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from irforge.errors import ArtifactError, InputError
from irforge.train.checkpoint import weights_of_container


def read_weights(path: str | os.PathLike[str], source: str, *, trust: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, in float32 on the CPU.

    Args:
        path: `.safetensors`, a pickled state dict, or a TorchScript archive such as OpenAI publishes its CLIP in.
        source: where such a file comes from, for the error.
        trust: pickles and TorchScript archives may run code of whoever made them; they are read only with True.

    Raises:
        InputError: there is no such file.
        ArtifactError: it cannot be read, or needs `trust`.
    """
    where = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"there is no checkpoint '{where}'", f"Give the path of {source}")
    if where.endswith(".safetensors"):
        return weights_of_container(_safetensors(where), where)
    if not trust:
        raise ArtifactError(
            f"'{where}' is a pickle or a program, which can run code of whoever made it",
            "Trust it explicitly if you know where it comes from, or use a .safetensors file",
        )
    try:
        if _is_torchscript(path):
            return weights_of_container(torch.jit.load(where, map_location="cpu").state_dict(), where)
        return weights_of_container(torch.load(path, map_location="cpu", weights_only=True), where)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        raise ArtifactError(f"'{where}' is damaged, or holds more than tensors", f"Give {source}") from None


def fill(network: nn.Module, weights: dict[str, Tensor], where: str | os.PathLike[str], source: str) -> None:
    """Load weights that must all fit.

    Raises:
        ArtifactError: they do not; names the first difference.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
        raise ArtifactError(f"the weights in '{os.fspath(where)}' do not fit: {first}", f"Give {source}") from None


def _safetensors(where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(where)
    except SafetensorError:
        raise ArtifactError(f"'{where}' is no readable safetensors file", "Copy it again") from None


def _is_torchscript(path: str | os.PathLike[str]) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
