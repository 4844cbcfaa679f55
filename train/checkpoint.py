"""Checkpoints: safetensors with the contract in their metadata, and the published pickles of research code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irforge import files
from irforge.contract import METADATA_KEY, Contract, Provenance
from irforge.errors import ArtifactError, InputError
from irforge.train.detectors.base import Deployable, output_of
from irforge.train.detectors.registry import DETECTORS, find_detector

PICKLE_SUFFIXES = (".pkl", ".pt", ".pth", ".tar", ".ckpt", ".bin")


def save_checkpoint(path: str | os.PathLike[str], network: nn.Module, contract: Contract) -> None:
    """Write a network's weights and its contract as one safetensors file, atomically."""
    _write(path, network.state_dict(), contract)


def save_rounded(
    source: str | os.PathLike[str], path: str | os.PathLike[str], contract: Contract | None = None
) -> None:
    """Copy a checkpoint with its kernels in float16, half the size; biases and batch norm stay in float32.

    `contract` replaces the one in `source`.
    """
    deployable, own = load_deployable(source)
    network = deployable.network
    weights = {
        name: t.half() if t.is_floating_point() and t.ndim > 1 else t for name, t in network.state_dict().items()
    }
    _write(path, weights, own if contract is None else contract)


def _write(path: str | os.PathLike[str], weights: Mapping[str, Tensor], contract: Contract) -> None:
    from safetensors.torch import save

    tensors = {name: t.detach().cpu().contiguous() for name, t in weights.items()}
    files.write_bytes(path, save(tensors, {METADATA_KEY: contract.to_json()}))


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """The contract of a safetensors checkpoint; no weight is read.

    Raises:
        InputError: there is no such file.
        ArtifactError: not a safetensors file, or one without a contract.
    """
    from safetensors import SafetensorError, safe_open

    where = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"checkpoint '{where}' does not exist", "Check the path")
    try:
        with safe_open(where, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        raise ArtifactError(f"'{where}' is no readable safetensors file", "Train or copy it again") from None
    if METADATA_KEY not in metadata:
        raise ArtifactError(
            f"checkpoint '{where}' carries no contract",
            "Only checkpoints written by 'irforge fit' explain themselves",
        )
    return Contract.from_json(metadata[METADATA_KEY], where)


def load_deployable(path: str | os.PathLike[str], *, trust: bool = False) -> tuple[Deployable, Contract]:
    """The trained detector of a checkpoint as a module that takes frames, and its contract.

    Args:
        path: a safetensors checkpoint of ours, or a published pickle (`.pkl`, `.pt`, `.pth`, `.tar`).
        trust: a pickle may run code of whoever made it; it is read only with True, and then with weights_only.

    Returns:
        The module in eval mode, float32, on the CPU: see `irforge.train`.

    Raises:
        InputError: no such file.
        ArtifactError: unreadable, another detector's weights, or a pickle without `trust`.
    """
    where = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"checkpoint '{where}' does not exist", "Check the path")
    if not where.endswith(".safetensors"):
        return _published(Path(path), trust)
    from safetensors.torch import load_file

    contract = read_contract(path)
    name = contract.provenance.detector
    if name not in DETECTORS:
        raise ArtifactError(
            f"checkpoint '{where}' is of detector '{name}', which this irforge does not have",
            f"Detectors: {', '.join(DETECTORS)}",
        )
    detector = find_detector(name)
    weights = {key: t.float() if t.is_floating_point() else t for key, t in load_file(where).items()}
    found = detector.options_of(weights)
    if found is None:
        raise ArtifactError(
            f"the weights in '{where}' are not {detector.title}'s", "Give a checkpoint of that detector"
        )
    network = detector.build(**{**contract.provenance.network, **found})
    _fill(network, weights, where)
    return detector.deployable(network, contract.input).eval(), contract


def _published(path: Path, trust: bool) -> tuple[Deployable, Contract]:
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        raise ArtifactError(f"'{path}' is no checkpoint", "Checkpoints end in .safetensors, .pkl, .pt, .pth or .tar")
    if not trust:
        raise ArtifactError(
            f"'{path}' is a pickle, which can run code of whoever made it",
            "Add --trust if you know where it comes from, or use a .safetensors checkpoint",
        )
    weights = weights_of_container(_unpickled(path), str(path))
    for name in DETECTORS:
        detector = find_detector(name)
        options = detector.options_of(weights)
        if options is None:
            continue
        network = detector.build(**options)
        _fill(network, weights, str(path))
        spec = detector.published_input(options)
        provenance = Provenance(detector=name, network=options, weights_sha256=files.sha256_of_file(path))
        contract = Contract(input=spec, output=output_of(detector, 0.5, options), provenance=provenance)
        return detector.deployable(network, spec).eval(), contract
    known = ", ".join(find_detector(name).title for name in DETECTORS)
    raise ArtifactError(f"the weights in '{path}' belong to no detector known here", f"Known: {known}")


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"'{path}' holds more than tensors, or is damaged",
            "Only plain weights are read; save its state_dict alone with the code that made it",
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError):
        raise ArtifactError(f"'{path}' is truncated or no PyTorch file", "Copy it again") from None


def weights_of_container(content: Any, where: str) -> dict[str, Tensor]:
    """The weights in what a pickle held: a bare dict of tensors, or one under `state_dict` or `net`.

    Raises:
        ArtifactError: neither.
    """
    for key in ("state_dict", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise ArtifactError(f"'{where}' holds no weights", "A dict of tensors is expected, bare or under 'state_dict'")
    weights = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}


def _fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
        raise ArtifactError(f"the weights in '{where}' do not fit the network: {first}") from None
