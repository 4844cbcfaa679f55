"""Promises of descriptions, findings and overlaps, on frames whose figures are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.datasets import BoxTruth, Dataset, Sample, open_dataset
from irforge.datasets.check import scan
from irforge.datasets.describe import describe, frame_digest, frame_facts, histogram
from irforge.datasets.overlap import label, overlap, shared_names


def save(path: Path, levels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), levels)
    return path


def noisy(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(80, 121, (40, 50)).astype(np.uint8)


def dataset(*samples: Sample, split: str = "all") -> Dataset:
    return Dataset("set", split, Path("set"), "CC0", samples)


def masked(folder: Path, name: str, frame: np.ndarray, mask: np.ndarray) -> Sample:
    return Sample(
        name, save(folder / f"{name}.png", frame), save(folder / f"{name}_mask.png", mask.astype(np.uint8) * 255)
    )


def test_contrast_is_the_targets_mean_less_the_ring_around_it(tmp_path: Path) -> None:
    frame, mask = np.full((40, 50), 100, np.uint8), np.zeros((40, 50), bool)
    # The ring of a 2 x 1 target is 3 pixels wide: 8 x 7 pixels without the two, half of them 90 and half 110.
    frame[10, 20:22], mask[10, 20:22] = (150, 170), True
    frame[7:14, 17:21][~mask[7:14, 17:21]] = 90
    frame[7:14, 21:25][~mask[7:14, 21:25]] = 110
    facts = frame_facts(masked(tmp_path, "a", frame, mask))
    assert facts.areas.tolist() == [2] and facts.size == (40, 50) and facts.highest == 170
    np.testing.assert_allclose(facts.levels, [60])
    np.testing.assert_allclose(facts.deviations, [6])


def test_other_targets_are_no_surroundings_and_a_flat_ring_has_the_spread_of_rounding(tmp_path: Path) -> None:
    frame, mask = np.full((40, 50), 100, np.uint8), np.zeros((40, 50), bool)
    for column in (20, 22):
        frame[10, column], mask[10, column] = 103, True
    facts = frame_facts(masked(tmp_path, "a", frame, mask))
    np.testing.assert_allclose(facts.levels, [3, 3])
    np.testing.assert_allclose(facts.deviations, [3 * 12**0.5] * 2)


def test_boxes_are_measured_on_the_pixels_whose_centres_they_hold(tmp_path: Path) -> None:
    frame = np.full((40, 50), 100, np.uint8)
    frame[10:12, 20:23] = 160
    path = save(tmp_path / "a.png", frame)
    boxes = np.array([[19.6, 10.4, 23.4, 12.4]], np.float32)
    facts = frame_facts(Sample("a", path, box_truth=BoxTruth(boxes, np.array([1]))))
    np.testing.assert_allclose(facts.areas, [7.6], rtol=1e-5)
    np.testing.assert_allclose(facts.levels, [60])
    # A box between the centres of pixels, in the last one, still has that pixel.
    corner = BoxTruth(np.array([[49.6, 39.6, 50, 40]], np.float32), np.array([0]))
    np.testing.assert_allclose(frame_facts(Sample("a", path, box_truth=corner)).levels, [0])


def test_a_target_that_fills_its_frame_has_no_contrast(tmp_path: Path) -> None:
    facts = frame_facts(masked(tmp_path, "a", np.full((4, 4), 200, np.uint8), np.ones((4, 4), bool)))
    assert facts.areas.tolist() == [16] and len(facts.levels) == 0


def test_a_description_counts_what_is_there(tmp_path: Path) -> None:
    tinted = np.repeat(noisy(2)[:, :, None], 3, axis=2)
    tinted[0, 0] = (1, 2, 3)
    mask = np.zeros((40, 50), bool)
    one, two = mask.copy(), mask.copy()
    one[3:6, 3:6] = two[3, 3] = two[20, 20] = True
    part = dataset(
        masked(tmp_path, "a", noisy(0), mask),
        masked(tmp_path, "b", noisy(1).astype(np.uint16) * 100, one),
        masked(tmp_path, "c", tinted, two),
    )
    facts, findings = scan(part)
    found = describe(part, facts)
    assert not findings
    assert (found.truth, found.frames, found.targets, found.target_free) == ("masks", 3, 3, 1)
    assert found.targets_per_frame == {0: 1, 1: 1, 2: 1} and found.sizes == {"50x40": 3}
    assert found.stored == {"8-bit gray": 1, "16-bit gray": 1, "8-bit RGB, coloured": 1}
    assert found.area is not None and found.area.bins == ((0, 4, 2), (4, 9, 1)) and found.area.median == 1
    plain = dataset(Sample("a", tmp_path / "a.png"))
    found = describe(plain, scan(plain)[0])
    assert (found.truth, found.targets, found.target_free, found.area) == ("none", None, None, None)


def test_bins_hold_their_upper_edge_and_infinity_is_none() -> None:
    values = [np.array([-3.0, 0, 2]), np.array([2.1, 7])]
    found = histogram(values, (-np.inf, 0, 2, 5, np.inf))
    assert found is not None
    assert found.bins == ((None, 0, 2), (0, 2, 1), (2, 5, 1), (5, None, 1))
    assert found.median == 2
    assert histogram([np.empty(0)], (0, 1)) is None


def test_a_digest_is_of_the_levels_and_not_of_the_file() -> None:
    gray = noisy()
    assert frame_digest(gray) == frame_digest(np.repeat(gray[:, :, None], 3, axis=2))
    changed = gray.copy()
    changed[0, 0] ^= 1
    others = [changed, gray.T, gray.astype(np.uint16), np.repeat(gray[:, :, None], 3, axis=2) * (1, 1, 0)]
    assert len({frame_digest(frame) for frame in (gray, *others)}) == 5


def test_one_frame_under_two_names_is_a_fault(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        save(tmp_path / f"{name}.png", noisy(seed))
    save(tmp_path / "d.bmp", noisy(0))
    _, findings = scan(open_dataset(tmp_path))
    assert [(finding.kind, finding.where, finding.fault) for finding in findings] == [("same frame twice", "a", True)]
    assert "c, d" in findings[0].text


def test_frames_that_cannot_be_used_are_findings_and_the_rest_is_read(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), bool)
    samples = [masked(tmp_path, name, noisy(i), mask) for i, name in enumerate("abc")]
    samples[0].frame_path.write_bytes(samples[0].frame_path.read_bytes()[:200])
    save(tmp_path / "b_mask.png", np.zeros((20, 25), np.uint8))
    facts, findings = scan(dataset(*samples))
    assert [frame.name for frame in facts] == ["c"]
    assert [(finding.kind, finding.where, finding.fault) for finding in findings] == [
        ("cannot be used", "a", True),
        ("cannot be used", "b", True),
    ]


def test_a_box_written_twice_is_a_fault(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noisy())
    boxes = np.array([[1, 1, 4, 4]] * 3, np.float32)
    _, findings = scan(dataset(Sample("a", path, box_truth=BoxTruth(boxes, np.array([0, 1, 0])))))
    assert [(finding.kind, finding.fault) for finding in findings] == [("repeated box", True)]


def test_an_overlap_is_found_by_content_whatever_the_names(tmp_path: Path) -> None:
    def frames(folder: str, **seeds: int) -> Dataset:
        part = [Sample(f"{folder}/{n}", save(tmp_path / folder / f"{n}.png", noisy(s))) for n, s in seeds.items()]
        return dataset(*part, split=folder)

    test, train = frames("test", a=0, b=1, c=2, d=3), frames("train", a=0, x=1, c=9)
    digests = {label(part): {sample.id: frame_digest(sample.frame()) for sample in part} for part in (test, train)}
    found = overlap(test, train, digests)
    assert found.same == ("test/a",) and found.renamed == (("test/b", "train/x"),)
    assert found.name_only == ("test/c",) and (found.shared, found.frames) == (2, 4)


def test_lists_for_testing_are_held_against_lists_for_training() -> None:
    def part(split: str, names: str) -> Dataset:
        return dataset(*(Sample(name, Path(name)) for name in names), split=split)

    parts = [part("train", "abc"), part("trainval", "abcd"), part("trainvaltest", "abcdef"), part("val", "cd")]
    shared = shared_names([*parts, part("test", "def")])
    assert [(pair.test, pair.train, pair.shared) for pair in shared] == [("val", "train", 1), ("test", "trainval", 1)]


def test_gray_frames_stored_as_palette_or_with_alpha_are_the_same_frame_with_the_same_truth(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes palettes")
    levels, mask = noisy(), np.zeros((40, 50), bool)
    mask[3:6, 3:6] = True
    gray = masked(tmp_path, "gray", levels, mask)
    order = np.random.default_rng(3).permutation(256).astype(np.uint8)
    palette = image.fromarray(np.argsort(order).astype(np.uint8)[levels])
    palette.putpalette(np.repeat(order[:, None], 3, axis=1).tobytes())
    for name, stored in (("palette", palette), ("alpha", image.fromarray(levels).convert("RGBA"))):
        stored.save(tmp_path / f"{name}.png")
        same = Sample(name, tmp_path / f"{name}.png", gray.mask_path)
        assert frame_facts(same).digest == frame_facts(gray).digest
        np.testing.assert_array_equal(same.centroids(), gray.centroids())
