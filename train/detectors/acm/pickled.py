"""Weights that `torch.save` pickled, alone or as a whole module, without the code that made them.

Of the pickle nothing is built but its tensors: objects of any other class become a `_Shell`, which keeps what it is
given and does nothing. So it neither needs nor runs what the pickle names.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irforge.errors import ArtifactError
from irforge.train.checkpoint import weights_of_container

TORCH_MARK = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}


def weights_of_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, or what `state_dict` would have given of the module in it.

    Raises:
        ArtifactError: it is no pickle of torch, or cut short, or holds no weights.
    """
    try:
        with open(path, "rb") as file:
            content, storages = _read_archive(file) if zipfile.is_zipfile(path) else _read_sequence(file)
        plain = _plain(content, storages)
    except (pickle.UnpicklingError, struct.error, EOFError, LookupError, ValueError, TypeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"'{path}' holds no weights that can be read: {reason}", "Copy it again") from None
    return weights_of_container(plain, str(path))


class _Shell:
    """Stands for an object of any class in a pickled module."""

    def __init__(self, *arguments: Any) -> None: ...


class _Storage(NamedTuple):
    key: str
    dtype: str


class _Pending(NamedTuple):
    """A tensor whose bytes come later, and how it lies in its storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def filled(self, storages: Mapping[str, bytes]) -> Tensor:
        flat = np.frombuffer(storages[self.storage.key], self.storage.dtype)
        # A view, and not as_strided, so that NumPy checks that it lies within.
        steps = tuple(flat.itemsize * step for step in self.stride)
        view: np.ndarray[Any, Any] = np.ndarray(self.size, flat.dtype, flat, self.offset * flat.itemsize, steps)
        return torch.from_numpy(view.copy())


class _OnlyTensors(pickle.Unpickler):
    """Builds plain containers, `_Pending` and `_Shell`; no name in a pickle is ever imported."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return lambda storage, offset, size, stride, *_: _Pending(storage, offset, tuple(size), tuple(stride))
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return STORAGES.get(name) or type(name, (_Shell,), {})

    def persistent_load(self, saved: Any) -> Any:
        kind, what, key, *_ = saved
        if kind == "module":
            return what
        if not isinstance(what, str):
            raise ValueError(f"it holds values of the kind '{getattr(what, '__name__', what)}'")
        return self.storages.setdefault(str(key), _Storage(str(key), what))


def _read_archive(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    """What torch has written since 1.6: an archive of the pickle and of a file for each storage."""
    with zipfile.ZipFile(file) as archive:
        (root,) = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        content = _OnlyTensors(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
        inside = [name for name in archive.namelist() if name.startswith(f"{root}data/")]
        return content, {name.rpartition("/")[2]: archive.read(name) for name in inside}


def _read_sequence(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    """What torch wrote before: a mark, a version, a note on the machine, the object, its storages' keys; and then for
    each of these the number of its values, and the values."""
    if _OnlyTensors(file).load() != TORCH_MARK:
        raise ValueError("torch did not write it")
    _, machine = _OnlyTensors(file).load(), _OnlyTensors(file).load()
    if not machine["little_endian"]:
        raise ValueError("its bytes are in the other order")
    reader = _OnlyTensors(file)
    content, keys = reader.load(), _OnlyTensors(file).load()
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        width = np.dtype(reader.storages[str(key)].dtype).itemsize
        storages[str(key)] = file.read(count * width)
    return content, storages


def _plain(content: Any, storages: Mapping[str, bytes]) -> Any:
    if isinstance(content, _Pending):
        return content.filled(storages)
    if isinstance(content, _Shell):
        return {name: pending.filled(storages) for name, pending in _pending(content, "")}
    if isinstance(content, Mapping):
        return {name: _plain(value, storages) for name, value in content.items()}
    return content


def _pending(module: _Shell, prefix: str) -> Iterator[tuple[str, _Pending]]:
    parts = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in parts.get(kind, {}).items():
            if isinstance(tensor, _Pending):
                yield prefix + name, tensor
    for name, child in parts.get("_modules", {}).items():
        if isinstance(child, _Shell):
            yield from _pending(child, f"{prefix}{name}.")
