"""Weights of ACM and ALCNet as they were published: whole modules that torch pickled, and MXNet's parameter files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irforge.errors import ArtifactError, InputError
from irforge.train.detectors.acm.pickled import weights_of_pickle

MXNET_LIST = 0x112
MXNET_ARRAY = 0xF993FAC9
MXNET_NAMES = {"gamma": "weight", "beta": "bias"}
LARGEST = 256 * 2**20
"""Bytes of a file; the published ones have 2 million."""

Weights = dict[str, Tensor]


def read_published(path: Path, trust: bool) -> Weights:
    """The weights in a `.params` file, a pickled module, or a pickled state dict, by torch's names.

    Raises:
        InputError: no such file.
        ArtifactError: a pickle without `trust`, or no weights.
    """
    if not path.is_file():
        raise InputError(f"weights '{path}' do not exist", "Check the path")
    if path.stat().st_size > LARGEST:
        raise ArtifactError(f"'{path}' is larger than any weights of ACM or ALCNet", "Check the path")
    if path.suffix == ".params":
        return read_mxnet(path)
    if not trust:
        raise ArtifactError(
            f"'{path}' is a pickle, which can run code of whoever made it", "Add --trust if you know where it is from"
        )
    return weights_of_pickle(path)


def read_mxnet(path: Path) -> Weights:
    """The arrays of a file that Gluon's `save_parameters` wrote, as float32, by torch's names.

    Batch norm counts no batches there: the counters are 0.

    Raises:
        ArtifactError: another kind of file, arrays that are not dense float32, or a file cut short.
    """
    try:
        arrays, names = _mxnet_list(path.read_bytes())
    except (struct.error, ValueError) as error:
        raise ArtifactError(f"'{path}' is no MXNet parameter file: {error}", "Copy it again") from None
    weights: Weights = {}
    for name, array in zip(names, arrays, strict=True):
        layer, _, part = name.rpartition(".")
        weights[f"{layer}.{MXNET_NAMES.get(part, part)}"] = torch.from_numpy(array)
        if part == "gamma":
            weights[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return weights


def _mxnet_list(content: bytes) -> tuple[list[np.ndarray[Any, np.dtype[np.float32]]], list[str]]:
    place = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal place
        values = struct.unpack_from(f"<{form}", content, place)
        place += struct.calcsize(f"<{form}")
        return values

    magic, _, count = take("QQQ")
    if magic != MXNET_LIST or count > len(content):
        raise ValueError("it does not begin as one")
    arrays = []
    for _ in range(count):
        kind, storage, rank = take("IiI")
        if kind != MXNET_ARRAY or storage != 0 or rank > 8:
            raise ValueError("an array is not dense")
        shape = take(f"{rank}q")
        _, _, dtype = take("iii")
        size = int(np.prod(shape, dtype=np.int64))
        if dtype != 0 or size < 0:
            raise ValueError("an array is not of float32")
        arrays.append(np.frombuffer(content, "<f4", size, place).reshape(shape).copy())
        place += 4 * size
    (named,) = take("Q")
    if named != count:
        raise ValueError("arrays without names")
    names = []
    for _ in range(named):
        (length,) = take("Q")
        names.append(take(f"{length}s")[0].decode())
    return arrays, names
