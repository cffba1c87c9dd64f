"""Decode every file of a list once: video index, table, quarantine and picture."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidadapt.apps.prepare.check_file import decode_whole
from vidadapt.apps.prepare.check_table import write_table
from vidadapt.apps.report import write_check_picture
from vidadapt.lists.counting import counted_videos
from vidadapt.lists.index import index_path, read_index
from vidadapt.lists.prepared import known_root
from vidadapt.lists.quarantine import write_quarantine
from vidadapt.lists.reading import LABELS, Samples, read_label_names, read_list
from vidadapt.video import VideoFacts, file_of

STORE_EVERY = 10.0  # seconds between two stores of rows in the video index


@dataclass(frozen=True)
class Plan:
    """A list to check, and the files to write about it.

    Attributes:
        list_path: the list.
        root: folder that its paths are relative to.
        samples: of the list.
        label_names: of labels.txt beside the list; None without one.
        table, picture, quarantine, index: files to write.
    """

    list_path: Path
    root: Path
    samples: Samples
    label_names: tuple[str, ...] | None
    table: Path
    picture: Path
    quarantine: Path
    index: Path


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        facts: of each video, in the list's order; an error does not name the file.
        num_held: number of videos that the index knew before.
    """

    plan: Plan
    facts: tuple[VideoFacts, ...]
    num_held: int

    def unreadable(self) -> list[VideoFacts]:
        """Facts of files of which no frame decodes."""
        return [one for one in self.facts if not one.num_frames]


def plan_checks(
    lists: Sequence[Path], root: Path | None, out: Path | None, allow_outside_root: bool = False
) -> list[Plan]:
    """Read the lists and plan all files; what would stop a check later is raised here.

    Args:
        root: of all the lists; None: what prepared.json beside a list says.
        out: folder for the files that a check writes; None: beside each list.
        allow_outside_root: see `read_list`.

    Raises:
        ValueError: a list or its labels.txt cannot be used, no root is known, none of a list's
            videos is in it, two lists would write the same files, or the file in an index's place
            is no index.
        OSError: the files cannot be written.
    """
    plans: list[Plan] = []
    for list_path in lists:
        found = known_root(list_path, root)
        # Labels matter only to training, and a missing file is a row of the table.
        samples = read_list(
            list_path,
            found,
            num_classes=sys.maxsize,
            allow_outside_root=allow_outside_root,
        )
        if not any(file_of(found / sample.path).exists() for sample in samples):
            raise ValueError(
                f"{list_path}: none of its {len(samples):,} videos is there, "
                f"{found / samples[0].path} nor any other; give --root, the folder that its paths "
                "are relative to"
            )
        names = list_path.with_name(LABELS)
        folder = out or list_path.parent
        plans.append(
            Plan(
                list_path,
                found,
                samples,
                tuple(read_label_names(names)) if names.is_file() else None,
                folder / f"{list_path.name}.check.csv",
                folder / f"{list_path.name}.check.png",
                folder / f"{list_path.name}.quarantine.txt",
                index_path(list_path, out),
            )
        )
        earlier = {plan.table: plan.list_path for plan in plans[:-1]}
        if plans[-1].table in earlier:
            raise ValueError(
                f"{list_path} and {earlier[plans[-1].table]} would both write {plans[-1].table}; "
                "give each list once, or check those of one name one by one"
            )
    for plan in plans:
        _begin(plan)
    return plans


def _begin(plan: Plan) -> None:
    """Check that the index can be read and the files can be written."""
    try:
        plan.table.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=plan.table.parent):
            pass
    except OSError as error:
        raise OSError(
            f"{plan.table} cannot be written ({error.strerror}); give --out, a folder that can"
        ) from error
    read_index(plan.index)


def check(
    plan: Plan,
    reader: str,
    num_processes: int,
    time_limit: float | None,
    others: Sequence[Checked] = (),
) -> Checked:
    """Decode each file once, in processes of their own, and write all that is found.

    A file is not decoded again while its row in the video index is valid, whoever wrote it: a check
    that was killed continues where it was.

    Args:
        reader: key of `READERS`, as the training run's data.reader.
        time_limit: seconds after which the decoding of one file counts as hung; None: never.
        others: lists that were checked just now; what they share with this one is not decoded
            again.

    Raises:
        OSError: a file cannot be written.
        ValueError: the file in the index's place is no index.
    """
    videos = counted_videos(
        plan.list_path,
        plan.root,
        plan.samples,
        reader,
        others=[other.plan.index for other in others if other.plan.root == plan.root],
        index_dir=plan.index.parent,
        num_workers=num_processes,
        time_limit=time_limit,
        limit_key="--time-limit",
        store_every=STORE_EVERY,
        whole=True,
        count=decode_whole,
        label="checking",
    )
    found = tuple(videos.facts(place) for place in range(len(videos)))
    files = (f"{videos.file(place)}: " for place in range(len(videos)))
    bare = (
        replace(facts, error=facts.error.removeprefix(file))
        for facts, file in zip(found, files, strict=True)
    )
    checked = Checked(plan, tuple(bare), len(videos) - len(videos.loose) - videos.decoded)
    write_table(plan.table, checked.facts, plan.samples.labels.tolist())
    write_quarantine(plan.quarantine, {one.path: one.error for one in checked.unreadable()})
    write_check_picture(
        plan.picture,
        plan.list_path.name,
        checked.facts,
        plan.samples.labels.tolist(),
        plan.label_names,
    )
    return checked
