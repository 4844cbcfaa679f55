"""Promises of the parity check."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Barrier, get_ident

import cv2
import numpy as np
import pytest

from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, PadToMultiple, Provenance, TensorSpec
from irforge.datasets import Sample
from irforge.errors import ArtifactError, CheckFailed, UsageError
from irforge.runtime.limits import LIMITS, Limit
from irforge.runtime.parity import compare
from irforge.runtime.tally_masks import size_class
from irforge.session import TensorInfo, Timings

SIZE = 32
Answer = Callable[[np.ndarray], np.ndarray]


class Answering:
    """A Session whose mask is any function of the frame's levels, scaled to 0..1."""

    backend = device = "test"
    thread_rule = "any thread"
    custom_ops = ""
    last_timings: Timings | None = None
    inputs: Mapping[str, TensorInfo] = {"frames": TensorInfo("uint8", (1, 1, SIZE, SIZE))}
    outputs: Mapping[str, TensorInfo] = {"mask": TensorInfo("float32", (1, 1, SIZE, SIZE))}

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def run(self, feeds, out=None):
        return {"mask": self.answer(feeds["frames"].astype(np.float32) / 255)}

    def close(self) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def contract() -> Contract:
    spec = InputSpec(
        height=SIZE, width=SIZE, fit=PadToMultiple(multiple=1), normalization=Normalization(mean=0, std=255)
    )
    tensor = TensorSpec(name="mask", dtype="float32", shape=["N", 1, SIZE, SIZE], meaning="target probability")
    output = OutputSpec(kind="mask", classes=["target"], score_threshold=0.5, tensors=[tensor])
    return Contract(input=spec, output=output, provenance=Provenance(detector="test"))


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., Sample]:
    """A frame of background 26 (p = 0.1) with targets of level 204 (p = 0.8) as (row, column, side)."""

    def make(*targets: tuple[int, int, int], name: str = "a", size: int = SIZE, mask: bool = True) -> Sample:
        truth = np.zeros((size, size), np.uint8)
        for row, column, side in targets:
            truth[row : row + side, column : column + side] = 255
        frame_path, mask_path = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        cv2.imwrite(str(frame_path), np.where(truth, 204, 26).astype(np.uint8))
        cv2.imwrite(str(mask_path), truth)
        return Sample(name, frame_path, mask_path if mask else None)

    return make


def without(row: int, column: int, side: int) -> Answer:
    """The right answer, but for one target that fades to 0.3."""

    def answer(p: np.ndarray) -> np.ndarray:
        faded = p.copy()
        faded[:, :, row : row + side, column : column + side] = 0.3
        return faded

    return answer


def same(p: np.ndarray) -> np.ndarray:
    return p


def test_equal_sessions_differ_in_nothing(contract, sample) -> None:
    samples = [sample((4, 4, 2)), sample((20, 9, 4), name="b")]
    result = compare(
        Answering(same), {"copy": Answering(same)}, samples, contract, limits={"copy": LIMITS["mask"]["fp32"]}
    )
    accuracy, parity = result.candidates["copy"]
    assert accuracy == result.reference
    assert accuracy.iou == accuracy.pd == 1 and accuracy.frames == 2 and accuracy.targets == 2
    assert parity.outputs[0].max_abs == parity.outputs[0].flipped_pixels == 0
    assert parity.iou_points == parity.pd_points == parity.false_pixels_per_100_frames == 0
    assert not parity.changes and parity.passed
    result.require()


def test_differences_are_of_probabilities_and_flips_of_decisions(contract, sample) -> None:
    def shifted(p: np.ndarray) -> np.ndarray:
        moved = p + np.float32(0.01)
        moved[0, 0, 0, 0] = 0.6
        return moved

    _, parity = compare(Answering(same), {"c": Answering(shifted)}, [sample((4, 4, 2))], contract).candidates["c"]
    (output,) = parity.outputs
    assert output.max_abs == pytest.approx(0.6 - 26 / 255, abs=1e-6)
    assert output.mean_abs == pytest.approx((0.01 * (SIZE**2 - 1) + output.max_abs) / SIZE**2, rel=1e-4)
    assert (output.flipped_pixels, output.flipped_share) == (1, 1 / SIZE**2)
    assert parity.false_pixels_per_100_frames == 100


def test_lost_and_gained_targets_are_listed_by_size_and_place(contract, sample) -> None:
    frame = sample((2, 3, 2), (10, 12, 4), (20, 20, 6), name="three")
    pair = {"c": Answering(without(2, 3, 2))}
    result = compare(Answering(without(20, 20, 6)), pair, [frame], contract)
    _, parity = result.candidates["c"]
    small, large = sorted(parity.changes, key=lambda change: change.area)
    assert (small.kind, small.frame, small.row, small.column, small.area) == ("lost", "three", 2.5, 3.5, 4)
    assert (large.kind, large.row, large.column, large.area) == ("gained", 22.5, 22.5, 36)
    assert small.reference_peak == pytest.approx(0.8) and small.candidate_peak == pytest.approx(0.3)
    assert [(s.targets, s.lost, s.gained) for s in parity.by_size] == [(1, 1, 0), (1, 0, 0), (1, 0, 1)]
    assert parity.pd_points == 0


def test_size_classes_end_at_9_and_25_pixels() -> None:
    assert [size_class(area) for area in (1, 9, 10, 25, 26)] == [
        *["up to 9 px"] * 2,
        *["10 to 25 px"] * 2,
        "over 25 px",
    ]


def test_crops_show_the_target_in_the_middle_also_at_the_border(contract, sample) -> None:
    result = compare(Answering(same), {"c": Answering(without(0, 0, 2))}, [sample((0, 0, 2))], contract)
    crop = result.candidates["c"][1].changes[0].crop
    planes = {}
    for name in ("frame", "truth", "reference", "candidate"):
        data = np.frombuffer(base64.b64decode(getattr(crop, name)), np.uint8)
        planes[name] = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert planes[name].shape == (33, 33)
    # The centre (0.5, 0.5) rounds to (0, 0): the target's own four pixels.
    assert (planes["truth"] == 255).sum() == 4 and planes["truth"][16:18, 16:18].all()
    assert planes["reference"][16, 16] == 204 and planes["candidate"][16, 16] == round(0.3 * 255)
    assert not planes["reference"][:16].any()


def test_only_so_many_crops_are_kept_but_every_change(contract, sample) -> None:
    samples = [sample((4, 4, 2), name=str(i)) for i in range(5)]
    result = compare(Answering(same), {"c": Answering(without(4, 4, 2))}, samples, contract, crops=2)
    changes = result.candidates["c"][1].changes
    assert len(changes) == 5 and [change.crop is not None for change in changes] == [True, True, False, False, False]


def test_padding_is_neither_compared_nor_scored(contract, sample) -> None:
    def noisy_padding(p: np.ndarray) -> np.ndarray:
        noisy = p.copy()
        noisy[:, :, 20:, :] = noisy[:, :, :, 20:] = 0.9
        return noisy

    result = compare(Answering(same), {"c": Answering(noisy_padding)}, [sample((4, 4, 2), size=20)], contract)
    accuracy, parity = result.candidates["c"]
    assert parity.outputs[0].max_abs == 0
    assert accuracy.fa == 0 and accuracy.iou == 1


def test_a_missed_limit_fails_the_check_and_names_it(contract, sample) -> None:
    samples, candidate = [sample((4, 4, 2), (20, 20, 3))], {"int8": Answering(without(4, 4, 2))}
    result = compare(Answering(same), candidate, samples, contract, limits={"int8": LIMITS["mask"]["int8"]})
    parity = result.candidates["int8"][1]
    assert {check.name: check.passed for check in parity.checks} == {
        "not finite": True,
        "IoU loss": False,
        "Pd loss": False,
        "more false pixels": True,
    }
    with pytest.raises(CheckFailed, match=r"'int8' against 'reference': IoU loss 30\.8 points, limit 0\.5") as caught:
        result.require()
    assert caught.value.exit_code == 6


def test_a_limit_is_met_when_it_is_reached_and_missed_beyond(contract, sample) -> None:
    def flat(value: float) -> Answering:
        return Answering(lambda p: np.full_like(p, value))

    # Sums of powers of two: the differences are exact.
    candidates = {"near": flat(0.375), "far": flat(0.376)}
    limits = dict.fromkeys(candidates, (Limit("max |Δp|", 0.25, "probability"),))
    result = compare(flat(0.125), candidates, [sample()], contract, limits=limits)
    assert result.candidates["near"][1].passed and not result.candidates["far"][1].passed


def test_values_that_are_not_finite_fail_whatever_the_limits(contract, sample) -> None:
    def broken(p: np.ndarray) -> np.ndarray:
        out = p.copy()
        out[0, 0, 4, 4:6] = np.nan
        return out

    result = compare(Answering(same), {"c": Answering(broken)}, [sample((4, 4, 2))], contract)
    parity = result.candidates["c"][1]
    assert parity.outputs[0].not_finite == 2 and parity.outputs[0].max_abs is None
    assert not parity.passed
    with pytest.raises(ArtifactError, match="not finite on frame 'a'"):
        compare(Answering(broken), {}, [sample((4, 4, 2))], contract)


def test_without_truth_outputs_are_compared_and_metrics_left_out(contract, sample) -> None:
    limits = {"c": LIMITS["mask"]["int8"]}
    result = compare(Answering(same), {"c": Answering(same)}, [sample((4, 4, 2), mask=False)], contract, limits=limits)
    accuracy, parity = result.candidates["c"]
    assert result.reference is None and accuracy is None and parity.iou_points is None
    assert [check.name for check in parity.checks] == ["not finite"]


def test_some_frames_without_truth_are_refused(contract, sample) -> None:
    with pytest.raises(UsageError, match="only 1 of 2 frames have truth"):
        compare(Answering(same), {}, [sample((4, 4, 2)), sample(name="b", mask=False)], contract)
    with pytest.raises(UsageError, match="no frame"):
        compare(Answering(same), {}, [], contract)


def test_an_output_of_another_shape_is_named(contract, sample) -> None:
    half = Answering(lambda p: p[:, :, ::2, ::2])
    with pytest.raises(ArtifactError, match=r"'half' gives \(1, 1, 16, 16\) as 'mask', expected \(1, 1, 32, 32\)"):
        compare(Answering(same), {"half": half}, [sample((4, 4, 2))], contract)


def test_sessions_run_at_the_same_time_where_their_thread_rule_allows(contract, sample) -> None:
    together, threads = Barrier(3, timeout=20), {}

    def waiting(name: str, wait: bool = True) -> Answering:
        def answer(p: np.ndarray) -> np.ndarray:
            threads[name] = get_ident()
            if wait:
                together.wait()
            return p

        return Answering(answer)

    bound = waiting("bound")
    bound.thread_rule = "the creating thread"
    candidates = {"b": waiting("b"), "bound": bound}
    result = compare(waiting("a"), candidates, [sample((4, 4, 2))], contract, workers=2)
    assert threads["bound"] == get_ident() and get_ident() not in (threads["a"], threads["b"])
    assert all(parity.outputs[0].max_abs == 0 for _, parity in result.candidates.values())
