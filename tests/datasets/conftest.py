"""A data root for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.layouts import listed, picture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with one dataset of every layout."""
    for i in range(1, 4):
        for images, masks, folder in (
            ("images", "masks", "nudt_sirst"),
            ("IRSTD1k_Img", "IRSTD1k_Label", "IRSTD-1k"),
        ):
            picture(tmp_path / folder / images / f"XDU{i}.png")
            picture(tmp_path / folder / masks / f"XDU{i}.png", target=(i, 5, i + 2, 6))
        picture(tmp_path / "sirst" / "images" / f"Misc_{i}.png")
        picture(tmp_path / "sirst" / "masks" / f"Misc_{i}_pixels0.png", target=(i, 5, i + 2, 6))
        picture(tmp_path / "sirst_v2" / "mixed" / f"Misc_{i}.png")
    listed(tmp_path / "nudt_sirst" / "splits" / "train.txt", "XDU3", "XDU1")
    listed(tmp_path / "nudt_sirst" / "splits" / "test.txt", "XDU2")
    listed(tmp_path / "nudt_sirst" / "img_idx" / "val_NUDT-SIRST.txt", "XDU1")
    listed(tmp_path / "IRSTD-1k" / "trainval.txt", "XDU1.png", "", "XDU2.png ")
    listed(tmp_path / "IRSTD-1k" / "test.txt", "XDU3")
    listed(tmp_path / "sirst" / "idx_427" / "test.txt", "Misc_1")
    listed(tmp_path / "sirst" / "idx_427" / "trainval.txt", "Misc_2", "Misc_3")
    picture(tmp_path / "sirst_v2" / "annotations" / "masks" / "Misc_1_pixels0.png", target=(1, 1, 4, 3))
    listed(tmp_path / "sirst_v2" / "splits" / "test_full.txt", "Misc_1", "Misc_2")
    return tmp_path
