"""Promises of the bounds: worked by hand, never above what a run could do, and marked as what they are."""

from __future__ import annotations

import re

import pytest

from irforge.runtime.boards import BOARDS, Board, frame_bound, intensity, ridge

TEN = Board(
    "ten",
    "8.0",
    bandwidth=100e9,
    peaks={"fp32": 1e12, "tf32": 4e12, "int8": 10e12},
    known_as="ten",
    document="",
    derived="",
)


def test_a_bound_worked_by_hand() -> None:
    bound = frame_bound(TEN, {"int8": 5_000_000_000}, tf32=None, least_bytes=20_000_000, moved=300_000_000)
    assert bound.compute == pytest.approx(1.0) and bound.memory == pytest.approx(0.2)
    assert bound.traffic == pytest.approx(3.0)
    assert bound.milliseconds == bound.compute and bound.by == "compute"


def test_a_small_network_with_large_weights_is_bound_by_memory() -> None:
    bound = frame_bound(TEN, {"int8": 1}, tf32=None, least_bytes=20_000_000, moved=None)
    assert bound.by == "memory" and bound.milliseconds == pytest.approx(0.2) and bound.traffic is None


def test_types_add_up_one_after_the_other() -> None:
    macs = {"int8": 5_000_000_000, "fp32": 1_000_000_000}
    assert frame_bound(TEN, macs, tf32=False, least_bytes=0, moved=None).compute == pytest.approx(1.0 + 2.0)
    assert frame_bound(TEN, macs, tf32=True, least_bytes=0, moved=None).compute == pytest.approx(1.0 + 0.5)


def test_a_type_nobody_listed_gets_the_benefit_of_the_doubt() -> None:
    fastest = frame_bound(TEN, {"fp4": 5_000_000_000}, tf32=None, least_bytes=0, moved=None)
    assert fastest.compute == pytest.approx(1.0)


def test_the_ridge_is_where_both_bounds_meet() -> None:
    macs = {"int8": 3_000_000_000, "fp32": 1_000_000_000}
    moved = round(2 * sum(macs.values()) / ridge(TEN, macs, tf32=False))
    bound = frame_bound(TEN, macs, tf32=False, least_bytes=0, moved=moved)
    assert intensity(macs, moved) == pytest.approx(ridge(TEN, macs, tf32=False))
    assert bound.traffic == pytest.approx(bound.compute)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_board_names_its_document_and_its_peaks_are_in_order(board: Board) -> None:
    assert len(board.document) > 40 and board.derived and 50e9 < board.bandwidth < 10e12
    # A number or a date, or the admission that there is none.
    assert re.search(r"v\d\.\d|of \w+ 20\d\d|\(20\d\d\)|revision not known", board.document)
    fp32, tf32, fp16, int8 = (board.peaks[kind] for kind in ("fp32", "tf32", "fp16", "int8"))
    assert fp32 <= tf32 <= fp16 < int8
    # A tensor core does twice as many operations in half the bits.
    assert int8 / fp16 == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("board", [b for b in BOARDS if b.compute_capability == "8.7"], ids=lambda board: board.name)
def test_peaks_of_an_orin_are_those_of_its_cores_at_its_clock(board: Board) -> None:
    clock = float(re.search(r"([\d.]+) (MHz|GHz)", board.name)[1]) * (1e9 if "GHz" in board.name else 1e6)
    cores = 2048 if "AGX" in board.name else 1024
    assert board.peaks["fp32"] == pytest.approx(2 * cores * clock, rel=0.01)
    # By 32 INT8 operations a core and clock on Orin, 16 times FP32; the printed TOPS are rounded.
    assert board.peaks["int8"] == pytest.approx(16 * 2 * cores * clock, rel=0.03)


def test_modes_of_one_board_are_told_apart() -> None:
    rows = [(board.known_as, board.mode) for board in BOARDS]
    assert len(set(rows)) == len(rows)
