"""Read the lists whose videos are copied, and write the lists of the copies."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.files import replaced
from vidadapt.lists import (
    LABELS_FILE,
    MANY,
    PREPARED_FILE,
    Prepared,
    Sample,
    add_to_index,
    index_path,
    known_multi_label,
    known_root,
    manifest_hash,
    read_label_names,
    read_list,
    read_prepared,
    write_list,
    write_prepared,
)
from vidadapt.video import VideoFacts, film_of


@dataclass(frozen=True)
class Originals:
    """Lists of videos that are to be copied.

    Attributes:
        root: absolute folder that their paths are relative to.
        lists: samples by the list's file name.
        roles: file name by what a run calls the list, see `Prepared.lists`.
        dataset: key of `vidadapt.data.DATASETS`.
        labels: file of the class names; None where there is none beside the lists.
        multi_label: a video has any number of labels.
    """

    root: Path
    lists: dict[str, tuple[Sample, ...]]
    roles: dict[str, str]
    dataset: str
    labels: Path | None
    multi_label: bool

    @property
    def paths(self) -> list[str]:
        """Every listed path once, in the order of the lists."""
        return list(dict.fromkeys(s.path for samples in self.lists.values() for s in samples))


def read_originals(
    list_paths: Sequence[Path],
    root: Path | None,
    allow_outside_root: bool = False,
    multi_label: bool = False,
) -> Originals:
    """Read the lists; a missing video is found and reported later.

    Args:
        root: of the videos; None: the one that the lists' prepared folders name.
        allow_outside_root, multi_label: see `read_list`.

    Raises:
        ValueError: a list cannot be read, two have one name or role, a root is not known, or roots
            or class names differ.
    """
    lists: dict[str, tuple[Sample, ...]] = {}
    roles: dict[str, str] = {}
    roots: dict[Path, Path] = {}
    labels: dict[str, Path] = {}
    datasets: set[str] = set()
    kinds: set[bool] = set()
    for path in list_paths:
        if path.name in lists:
            raise ValueError(f"{path}: another list is called {path.name}, too; rename one of them")
        known = known_root(path, root)
        if isinstance(known, str):
            raise ValueError(f"{known}: copies are made of local files; fetch the videos first")
        roots.setdefault(known, path)
        several = multi_label or known_multi_label(path)
        kinds.add(several)
        samples = read_list(path, known, MANY, allow_outside_root, multi_label=several)
        if part := next((p for p in samples.paths() if film_of(p) != p), None):
            raise ValueError(
                f"{path}: {part} is a segment of a film; fast copies are made of lists of whole "
                "files alone: train on the films, or cut the segments to files first"
            )
        lists[path.name] = tuple(samples)
        role = path.stem
        if (path.parent / PREPARED_FILE).is_file():
            prepared = read_prepared(path.parent)
            datasets.add(prepared.dataset)
            role = next((k for k, name in prepared.lists.items() if name == path.name), role)
        if role in roles:
            raise ValueError(f"{path}: {roles[role]} is the list for {role!r} already")
        roles[role] = path.name
        if path.with_name(LABELS_FILE).is_file():
            names = "\n".join(read_label_names(path.with_name(LABELS_FILE)))
            labels.setdefault(names, path.with_name(LABELS_FILE))
    if "val" in roles and "test" not in roles:
        roles["test"] = roles.pop("val")  # as a preparation would call it
    if len(kinds) > 1:
        raise ValueError("some of the lists are multi-label, others not: copy them in two calls")
    if len(roots) > 1 or len(labels) > 1:
        what, files = ("roots", roots.values()) if len(roots) > 1 else ("names", labels.values())
        raise ValueError(
            f"the lists have different {what} ({', '.join(map(str, files))}): copy them in calls "
            "of their own, into folders of their own"
        )
    return Originals(
        root=next(iter(roots)),
        lists=lists,
        roles=roles,
        dataset=datasets.pop() if len(datasets) == 1 else "custom",
        labels=next(iter(labels.values()), None),
        multi_label=kinds == {True},
    )


def write_copied(
    out: Path,
    originals: Originals,
    copy_of: Mapping[str, str],
    facts: Mapping[str, VideoFacts],
    made_by: Mapping[str, Any],
) -> dict[str, Path]:
    """Write the lists in their order with the copies' paths, and complete the prepared folder.

    Args:
        copy_of: list path of the copy by that of its source; a video without one is not listed.
        facts: what is known of a copy, by the copy's list path, for the video index. Copies that
            are not in it are decoded when they are first used.

    Returns:
        The lists written, by file name.
    """
    names = None
    if originals.labels is not None:
        names = read_label_names(originals.labels)
        if originals.labels != out / LABELS_FILE:
            with replaced(out / LABELS_FILE) as partial:
                shutil.copyfile(originals.labels, partial)
    written: dict[str, Path] = {}
    manifests: dict[str, str] = {}
    for role, name in originals.roles.items():
        samples = originals.lists[name]
        copied = [Sample(copy_of[s.path], s.label) for s in samples if s.path in copy_of]
        written[name] = out / name
        write_list(written[name], copied)
        if known := [facts[sample.path] for sample in copied if sample.path in facts]:
            add_to_index(index_path(written[name]), known)
        manifests[role] = manifest_hash(copied, names)
    write_prepared(
        out,
        Prepared(
            dataset=originals.dataset,
            root=".",
            lists=dict(originals.roles),
            label_names=LABELS_FILE if names is not None else None,
            manifests=manifests,
            made_by=dict(made_by),
            multi_label=originals.multi_label,
        ),
    )
    return written


def copy_names(paths: Sequence[str], root: Path, suffix: str | None) -> dict[str, str]:
    """Return the name of each video's copy below the folder of copies; no two are the same.

    A path outside the root loses what leads out of it. A suffix replaces that of the source, unless
    two originals would then get one name: then it is added.

    >>> copy_names(["v/1.webm", "v/1.avi", "v/2.webm", "../x.avi"], Path("/d"), ".mp4")
    {'v/1.webm': 'v/1.webm.mp4', 'v/1.avi': 'v/1.avi.mp4', 'v/2.webm': 'v/2.mp4', '../x.avi': 'x.mp4'}
    >>> copy_names(["/d/v/1.webm", "v/2.webm"], Path("/d"), None)
    {'/d/v/1.webm': 'v/1.webm', 'v/2.webm': 'v/2.webm'}

    Raises:
        ValueError: two videos would still have one name.
    """  # noqa: E501
    plain = {}
    for path in paths:
        inner = os.path.relpath(path, root) if os.path.isabs(path) else os.path.normpath(path)  # noqa: PTH117
        parts = [part for part in Path(inner).parts if part not in ("..", "/")]
        plain[path] = "/".join(parts)
    names = plain
    if suffix is not None:
        swapped = {path: os.path.splitext(name)[0] + suffix for path, name in plain.items()}  # noqa: PTH122
        often = _repeated(swapped.values())
        names = {p: plain[p] + suffix if name in often else name for p, name in swapped.items()}
    if often := _repeated(names.values()):
        both = [path for path, name in names.items() if name in often]
        raise ValueError(f"{both[0]!r} and {both[1]!r} would have one name as copies")
    return names


def _repeated(names: Iterable[str]) -> set[str]:
    return {name for name, number in Counter(names).items() if number > 1}
