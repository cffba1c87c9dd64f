"""Take a list out of another: stratified by class, in whole groups, the same for the same seed."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from vidadapt.apps.prepare.annotations import Entry
from vidadapt.apps.prepare.report import Report


def take_out(
    entries: Sequence[Entry],
    fraction: float,
    seed: int,
    *,
    name: str,
    label_names: Sequence[str],
    report: Report,
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Split entries into those that stay and those that are taken out, both in their old order.

    Each class gives about `fraction` of its videos: where groups have one class, the nearest number
    that whole groups allow (the larger of two); else see `choose_groups`. It keeps at least one.
    The result depends on the entries' keys, labels and groups and the seed, not on their order.

    Args:
        entries: with an empty group for a video that is a group of its own.
        fraction: of each class, in [0, 1).
        name: of the list that is taken out, for the report.
        label_names: of the classes, for the report.
        report: gets a note on every class of which no video is taken out.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction for {name} must be at least 0 and below 1, not {fraction}")
    if fraction == 0:
        return tuple(entries), ()
    members = members_of(entries)
    chosen = choose_groups(members, fraction, seed)
    kept = tuple(entry for entry in entries if group_of(entry) not in chosen)
    taken = tuple(entry for entry in entries if group_of(entry) in chosen)
    got = Counter(label for entry in taken for label in entry.classes)
    for label, count in sorted(Counter(label for e in entries for label in e.classes).items()):
        if not got[label]:
            groups = sum(1 for found in members.values() if found[label])
            report.note(
                f"classes without a video in {name}",
                f"{label_names[label] if label >= 0 else 'no label'}: {count} videos in {groups} "
                "groups",
            )
    return kept, taken


def members_of(entries: Iterable[Entry]) -> dict[str, Counter[int]]:
    """Return by group the number of videos of each label."""
    members: dict[str, Counter[int]] = defaultdict(Counter)
    for entry in entries:
        members[group_of(entry)].update(entry.classes)
    return members


def choose_groups(members: Mapping[str, Mapping[int, int]], fraction: float, seed: int) -> set[str]:
    """Choose groups that hold about `fraction` of each class's videos.

    Groups of several classes (a film with many actions) are taken first, in random order, each that
    brings the classes nearer to `fraction` of what such groups hold. They are then added or dropped
    one at a time, while that lowers the summed squared distance that the last step will leave. In
    it, groups of one class fill each class up to the sum of sizes that is nearest to its target.

    Args:
        members: by group, the number of videos of each label.
        fraction: in (0, 1).

    >>> sizes = {"a": {0: 3}, "b": {0: 2}, "c": {0: 5}, "d": {1: 4}}
    >>> sum(sizes[group].get(0, 0) for group in choose_groups(sizes, 0.5, seed=0))
    5
    >>> "d" in choose_groups(sizes, 0.5, seed=0)  # the only one of its class
    False
    """
    order = sorted(members, key=lambda group: _rank(group, seed))
    totals = _sum(members.values())
    targets = {label: fraction * total for label, total in totals.items()}
    single: dict[int, dict[str, int]] = defaultdict(dict)  # label: group: videos
    for group in order:
        if len(members[group]) == 1:
            ((label, number),) = members[group].items()
            single[label][group] = number
    mixed = {group: members[group] for group in order if len(members[group]) > 1}
    chosen = _first_choice(mixed, fraction, totals)
    chosen = _improved(chosen, mixed, single, targets, totals)
    taken = _sum(mixed[group] for group in chosen)
    for label, sizes in single.items():
        left = targets[label] - taken[label]
        chosen |= _fill(sizes, left, totals[label] - 1 - taken[label])
    return chosen


def choose_folds(
    members: Mapping[str, Mapping[int, int]], num_folds: int | None, seed: int
) -> dict[str, int]:
    """Give each group a fold, numbered from 1, so that every class is spread over the folds.

    Large groups come first, equal ones in random order, each into the fold that has fewest of the
    classes it brings; of equal folds the smallest, then the first. The result does not depend on
    the order of `members`.

    Args:
        members: by group, the number of videos of each label.
        num_folds: None: each group is a fold, in the order of their names.

    Raises:
        ValueError: fewer than two folds, or fewer groups than folds.

    >>> choose_folds({"b": {0: 2}, "a": {0: 1}}, None, seed=0)
    {'a': 1, 'b': 2}
    >>> sizes = {"a": {0: 3}, "b": {0: 2, 1: 1}, "c": {1: 3}, "d": {0: 1, 1: 2}}
    >>> folds = choose_folds(sizes, 2, seed=0)
    >>> [sum(sum(sizes[g].values()) for g, fold in folds.items() if fold == n) for n in (1, 2)]
    [6, 6]
    """
    wanted = len(members) if num_folds is None else num_folds
    if wanted < 2 or wanted > len(members):
        raise ValueError(
            f"--folds: expected from 2 to {len(members)} folds, as there are {len(members)} "
            f"groups, got {wanted}"
        )
    if num_folds is None:
        return {group: number for number, group in enumerate(sorted(members), start=1)}
    folds: list[Counter[int]] = [Counter() for _ in range(num_folds)]
    chosen = {}
    sizes = {group: sum(found.values()) for group, found in members.items()}
    for group in sorted(members, key=lambda group: (-sizes[group], _rank(group, seed))):
        of_class = members[group]
        crowd = [sum(fold[label] * n for label, n in of_class.items()) for fold in folds]
        number = min(range(num_folds), key=lambda at: (crowd[at], folds[at].total(), at))
        folds[number].update(of_class)
        chosen[group] = number + 1
    return chosen


def _first_choice(
    mixed: Mapping[str, Mapping[int, int]], fraction: float, totals: Mapping[int, int]
) -> set[str]:
    """Take, in order, each group that brings the classes nearer to `fraction` of `mixed`."""
    aims = {label: fraction * number for label, number in _sum(mixed.values()).items()}
    taken: Counter[int] = Counter()
    chosen = set()
    for group, found in mixed.items():
        gain = sum(
            (taken[label] - aims[label]) ** 2 - (taken[label] + number - aims[label]) ** 2
            for label, number in found.items()
        )
        if gain > 0 and all(taken[label] + n < totals[label] for label, n in found.items()):
            chosen.add(group)
            taken.update(found)
    return chosen


def _improved(
    chosen: set[str],
    mixed: Mapping[str, Mapping[int, int]],
    single: Mapping[int, Mapping[str, int]],
    targets: Mapping[int, float],
    totals: Mapping[int, int],
) -> set[str]:
    """Add or drop groups one by one until no change brings the classes nearer."""
    chosen = set(chosen)
    taken = _sum(mixed[group] for group in chosen)
    reachable = {
        label: _sums(list(single.get(label, {}).values())) for label in _sum(mixed.values())
    }

    def distance(label: int, number: int) -> float:
        """Least squared distance of a class from its target if mixed groups take `number` of it."""
        if number >= totals[label]:
            return math.inf  # it would keep no video
        most = totals[label] - 1 - number
        best = _nearest(reachable[label], targets[label] - number, most)
        return (number + best - targets[label]) ** 2

    improved = True
    while improved:
        improved = False
        for group, found in mixed.items():
            sign = -1 if group in chosen else 1
            change = sum(
                distance(label, taken[label] + sign * number) - distance(label, taken[label])
                for label, number in found.items()
            )
            if change < -1e-9:
                chosen ^= {group}
                for label, number in found.items():
                    taken[label] += sign * number
                improved = True
    return chosen


def merge_groups(entries: Sequence[Entry], same: Iterable[Sequence[str]]) -> tuple[Entry, ...]:
    """Return the entries, with groups joined wherever two of their videos are the same.

    Args:
        same: sets of keys of videos with the same content.

    >>> film = [Entry("x", 0, "f", ""), Entry("y", 0, "g", ""), Entry("z", 0, "", "")]
    >>> [entry.group for entry in merge_groups(film, [("x", "z")])]
    ['/z', 'g', '/z']
    """
    groups = {entry.key: group_of(entry) for entry in entries}
    leader: dict[str, str] = {}
    joined: set[str] = set()

    def find(group: str) -> str:
        while group in leader:
            group = leader[group]
        return group

    for keys in same:
        roots = sorted({find(groups[key]) for key in keys if key in groups})
        for root in roots[1:]:
            leader[root] = roots[0]
            joined |= {root, roots[0]}
    return tuple(
        replace(entry, group=find(group_of(entry))) if group_of(entry) in joined else entry
        for entry in entries
    )


def group_of(entry: Entry) -> str:
    """Return the group of an entry; one that names none is a group of its own."""
    return entry.group or f"/{entry.key}"  # a name that no other group has


def _rank(group: str, seed: int) -> bytes:
    """Return the place of a group in a random order that is the same on every machine."""
    return hashlib.sha256(f"{seed} {group}".encode(errors="surrogateescape")).digest()


def _sum(counts: Iterable[Mapping[int, int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for count in counts:
        total.update(count)
    return total


def _sums(sizes: Sequence[int]) -> int:
    """Return the sums of all subsets, as an integer whose bit n says whether n is one.

    >>> [n for n in range(10) if _sums([2, 5]) >> n & 1]
    [0, 2, 5, 7]
    """
    reachable = 1
    for size in sizes:
        reachable |= reachable << size
    return reachable


def _nearest(reachable: int, wanted: float, most: int) -> int:
    """Return the sum up to `most` that is nearest to `wanted`, the larger of two equally near.

    >>> _nearest(_sums([2, 5]), 3.5, 9), _nearest(_sums([2, 5]), 9, 6), _nearest(_sums([2]), -1, 5)
    (5, 5, 0)
    """
    reachable &= (1 << most + 1) - 1
    at = max(0, min(most, math.floor(wanted)))
    below = (reachable & (1 << at + 1) - 1).bit_length() - 1
    higher = reachable >> at + 1
    if not higher:
        return below
    above = at + (higher & -higher).bit_length()
    return above if above - wanted <= wanted - below else below


def _fill(sizes: Mapping[str, int], wanted: float, most: int) -> set[str]:
    """Return groups whose sizes add up to the sum up to `most` that is nearest to `wanted`.

    The first groups that allow this are taken, in the order of `sizes`.

    >>> sorted(_fill({"a": 2, "b": 3, "c": 2, "d": 4}, 4.2, 9)), _fill({"a": 2}, 0.9, 1)
    (['a', 'c'], set())
    """
    last = {0: ""}  # of each sum that can be reached: the group that first made it possible
    ideal = min(range(most + 1), key=lambda total: (abs(total - wanted), -total))
    for group, size in sizes.items():
        for total in list(last):
            if total + size <= most:
                last.setdefault(total + size, group)
        if ideal in last:
            break
    left = min(last, key=lambda total: (abs(total - wanted), -total))
    chosen: set[str] = set()
    while left:
        chosen.add(last[left])
        left -= sizes[last[left]]
    return chosen
