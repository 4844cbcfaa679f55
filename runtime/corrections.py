"""What a user says about a camera, and the filters that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.errors import UsageError
from irforge.frames import read_mask
from irforge.runtime.sources import Layout, Source, open_source
from irforge.runtime.thermal import (
    ColumnNoise,
    CutRows,
    DeadPixels,
    Filter,
    Filtered,
    InvertPolarity,
    Shutter,
    SmoothGain,
    eight_bit_contract,
    learn_dead_pixels,
)

FLAT = "flat:"


@dataclass(frozen=True)
class Corrections:
    """See `irforge.runtime.thermal` for each; whatever is left at its default is not done.

    dead: bool [H, W], of the picture without telemetry rows. smooth_gain: the weight of each new frame.
    """

    telemetry: CutRows = field(default_factory=CutRows)
    shutter: bool = False
    dead: npt.NDArray[np.bool_] | None = None
    column_noise: bool = False
    invert: bool = False
    smooth_gain: float | None = None

    def behind(self, source: Source, contract: Contract) -> Source:
        """`source` with these corrections, in the order in which the camera's faults came upon the picture.

        Raises:
            UsageError: see `SmoothGain`.
        """
        filters: list[Filter] = []
        if self.telemetry != CutRows():
            filters.append(self.telemetry)
        if self.shutter:
            filters.append(Shutter())
        if self.dead is not None:
            filters.append(DeadPixels(self.dead))
        if self.column_noise:
            filters.append(ColumnNoise())
        if self.invert:
            filters.append(InvertPolarity(contract.input.bit_depth))
        if self.smooth_gain is not None:
            filters.append(SmoothGain(contract, self.smooth_gain))
        return Filtered(source, filters) if filters else source

    def contract(self, contract: Contract) -> Contract:
        """The contract that the detector is to go by behind these corrections."""
        return contract if self.smooth_gain is None else eight_bit_contract(contract)


def parse_size(text: str) -> tuple[int, int]:
    """`640x512` (width x height, as cameras are sold) -> (height, width).

    Raises:
        UsageError: it is not of that form.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"'{text}' is no size", "Write WIDTHxHEIGHT, such as 640x512")
    return int(height), int(width)


def parse_telemetry(text: str) -> CutRows:
    """`TOP,BOTTOM` -> the rows to cut.

    Raises:
        UsageError: it is not of that form.
    """
    top, _, bottom = text.partition(",")
    if not (top.isdecimal() and bottom.isdecimal()):
        raise UsageError(f"'{text}' is no number of telemetry rows", "Write TOP,BOTTOM, such as 0,4")
    return CutRows(int(top), int(bottom))


def read_dead_pixels(text: str, layout: Layout, telemetry: CutRows) -> npt.NDArray[np.bool_]:
    """A dead-pixel map: a mask file, or `flat:SOURCE`, frames of a flat scene to learn it from.

    Raises:
        InputError: see `irforge.frames.read_mask`, `learn_dead_pixels` and `open_source`.
    """
    if not text.startswith(FLAT):
        return read_mask(Path(text))
    with Filtered(open_source(text.removeprefix(FLAT), layout), [telemetry]) as flat:
        return learn_dead_pixels(flat)
