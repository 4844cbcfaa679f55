"""The torch reference keeps the Session protocol, and its plain form is the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from irforge.errors import InputError
from irforge.export.reference import TorchSession
from irforge.session import Session


def _frames(height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 1, height, width), dtype=np.uint8)


def test_it_is_a_session(checkpoint: Path) -> None:
    with TorchSession(checkpoint) as session:
        assert isinstance(session, Session)
        mask = session.run({"frames": _frames()})["mask"]
        assert (mask.dtype, mask.shape) == (np.float32, (2, 1, 32, 48))
        out = {"mask": np.zeros_like(mask)}
        assert session.run({"frames": _frames()}, out) is out
        np.testing.assert_array_equal(out["mask"], mask)
    with pytest.raises(InputError, match="closed"):
        session.run({"frames": _frames()})


def test_the_plain_network_has_three_channels_and_the_same_values(checkpoint: Path) -> None:
    with TorchSession(checkpoint) as deployable, TorchSession(checkpoint, plain=True) as plain:
        first = next(m for m in plain._module.modules() if isinstance(m, torch.nn.Conv2d))
        assert first.in_channels == 3
        expected = deployable.run({"frames": _frames()})["mask"]
        np.testing.assert_allclose(plain.run({"frames": _frames()})["mask"], expected, atol=1e-5)


def test_bad_feeds_are_refused(checkpoint: Path) -> None:
    with TorchSession(checkpoint) as session:
        for feeds in ({}, {"frames": _frames().astype(np.float32)}, {"frames": _frames(48, 48)}):
            with pytest.raises(InputError, match="the graph takes"):
                session.run(feeds)


def test_another_size_is_taken_when_asked_for(checkpoint: Path) -> None:
    with TorchSession(checkpoint, size=(48, 64)) as session:
        assert session.inputs["frames"].shape == ("N", 1, 48, 64)
        assert session.run({"frames": _frames(48, 64)})["mask"].shape == (2, 1, 48, 64)


def test_threads_are_set_while_it_runs_only(checkpoint: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    with TorchSession(checkpoint, threads=before + 1) as session:
        session._module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        session.run({"frames": _frames()})
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
