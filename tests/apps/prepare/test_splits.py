"""Lists taken out of a list: whole groups, every class near its fraction, the same for a seed."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from vidadapt.apps.prepare import hmdb51
from vidadapt.apps.prepare.annotations import Entry
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.splits import choose_groups, merge_groups, take_out

SPLITS = Path(__file__).parents[4] / "shared" / "labels" / "hmdb51_splits"


NAMES = [f"class {label}" for label in range(51)]


def taken_out(
    entries: Sequence[Entry], fraction: float, seed: int, report: Report | None = None
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    report = Report() if report is None else report
    return take_out(entries, fraction, seed, name="dev", label_names=NAMES, report=report)


def entries_of(sizes: dict[str, dict[int, int]]) -> list[Entry]:
    return [
        Entry(f"{group}/{label}/{i}", label, group, "")
        for group, found in sizes.items()
        for label, number in found.items()
        for i in range(number)
    ]


def cost(sizes: dict[str, dict[int, int]], chosen: set[str], fraction: float) -> float:
    """Summed squared distance from the wanted numbers; infinite if a class keeps no video."""
    totals: Counter[int] = Counter()
    taken: Counter[int] = Counter()
    for group, found in sizes.items():
        totals.update(found)
        taken.update(found if group in chosen else {})
    if any(taken[label] == total for label, total in totals.items()):
        return float("inf")
    return sum((taken[label] - fraction * total) ** 2 for label, total in totals.items())


def best_cost(sizes: dict[str, dict[int, int]], fraction: float) -> float:
    """By trying every set of groups."""
    every = itertools.chain.from_iterable(
        itertools.combinations(sizes, n) for n in range(len(sizes) + 1)
    )
    return min(cost(sizes, set(chosen), fraction) for chosen in every)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_groups_of_one_class_are_chosen_as_well_as_can_be(fraction: float) -> None:
    rng = random.Random(0)
    for _ in range(40):
        sizes = {f"g{i}": {rng.randrange(3): rng.randint(1, 9)} for i in range(9)}
        chosen = choose_groups(sizes, fraction, seed=rng.randrange(100))
        assert cost(sizes, chosen, fraction) == pytest.approx(best_cost(sizes, fraction))


def test_groups_of_several_classes_come_near_to_the_best() -> None:
    """No single change of a group may improve the choice, and on average it is near the best."""
    rng = random.Random(1)
    ours = best = 0.0
    for _ in range(30):
        sizes = {
            f"g{i}": {label: rng.randint(1, 5) for label in rng.sample(range(4), rng.randint(1, 3))}
            for i in range(10)
        }
        chosen = choose_groups(sizes, 0.3, seed=rng.randrange(100))
        for group in sizes:
            assert cost(sizes, chosen, 0.3) <= cost(sizes, chosen ^ {group}, 0.3) + 1e-9
        ours += cost(sizes, chosen, 0.3)
        best += best_cost(sizes, 0.3)
    assert best < 100, "the sets are too hard to tell anything"
    assert ours < 3 * best


def test_order_does_not_matter_but_the_seed_does() -> None:
    entries = [Entry(f"video {i}", i % 4, f"film {i // 3}" if i % 2 else "", "") for i in range(90)]
    kept, taken = taken_out(entries, 0.2, 7)
    assert sorted(kept + taken, key=entries.index) == entries
    shuffled = random.Random(0).sample(entries, len(entries))
    kept_then, taken_then = taken_out(shuffled, 0.2, 7)
    assert set(taken_then) == set(taken)
    assert kept_then == tuple(entry for entry in shuffled if entry in set(kept))
    others = [taken_out(entries, 0.2, seed)[1] for seed in range(5)]
    assert len(set(others)) == 5


def test_every_class_keeps_a_video_and_the_report_names_those_without_one_in_dev() -> None:
    entries = entries_of({"a": {0: 3}, "b": {1: 1}, "c": {1: 1}, "d": {0: 1, 2: 9}})
    for fraction in (0.1, 0.5, 0.9):
        report = Report()
        kept, taken = taken_out(entries, fraction, 0, report)
        assert {entry.label for entry in kept} == {0, 1, 2}
        assert not {entry.group for entry in kept} & {entry.group for entry in taken}
        told = report.notes["classes without a video in dev"]
        missing = {0, 1, 2} - {entry.label for entry in taken}
        assert [line.split(":")[0] for line in told] == [NAMES[label] for label in sorted(missing)]
        assert "class 2: 9 videos in 1 groups" in told


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction for dev must be at least 0 and below 1"):
        taken_out([Entry("a", 0, "", "")], fraction, 0)


def test_the_same_content_joins_groups() -> None:
    entries = [
        Entry(key, 0, group, "")
        for key, group in (("a", "x"), ("b", "y"), ("c", "y"), ("d", ""), ("e", ""), ("f", "z"))
    ]
    groups = [e.group for e in merge_groups(entries, [("a", "b"), ("c", "d"), ("unknown", "f")])]
    assert len({groups[i] for i in (0, 1, 2, 3)}) == 1
    assert groups[4:] == ["", "z"]


@pytest.mark.skipif(not SPLITS.is_dir(), reason=f"needs the official split files of {SPLITS}")
@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_gets_a_tenth_of_every_class_without_sharing_a_film(split: int) -> None:
    entries = hmdb51.read(SPLITS, split, Report()).splits["train"]
    kept, taken = taken_out(entries, 0.1, 0)
    assert len({entry.group for entry in entries}) > 900, "groups are films"
    assert not {entry.group for entry in kept} & {entry.group for entry in taken}
    counts = Counter(entry.label for entry in taken)
    assert len(counts) == 51
    assert sum(number == 7 for number in counts.values()) >= 50  # of 70
    assert all(6 <= number <= 8 for number in counts.values())
