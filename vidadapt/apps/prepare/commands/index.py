"""vidadapt prepare index: count frames ahead of training."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pandas

from vidadapt.apps.prepare.check import COLUMNS, cells
from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.shards import join, sharded
from vidadapt.console import printable, printable_lines
from vidadapt.lists import (
    MANY,
    MOST_LISTED,
    Videos,
    counted_videos,
    index_path,
    known_multi_label,
    known_root,
    read_index,
    read_list,
)

WIDEST = 60  # characters of a cell of a printed table


def add(commands: options.Commands[options.Parser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "index",
        help="count the frames of listed videos, before a training run does",
        description="Decode every video of the lists once and keep its exact number of frames in "
        "an index beside the list. Run again, it counts only what is new or changed.",
        epilog="example: vidadapt prepare index train.txt test.txt --root /data/ssv2\n"
        "On four machines: --shard 1/4 on the first, 2/4 on the second, ...; then, once: --join 4",
    )
    options.add_lists(parser)
    options.add_reader(parser)
    about = "as data.index_dir of the training run: folder of the index where the list's cannot be "
    options.add_option(parser, "--index_dir", Path, None, f"{about}written")
    options.add_shards(parser)
    options.add_processes(parser, "decoding")
    options.add_time_limit(parser)
    options.add_switch(parser, "--show", "print the index as a table instead")
    options.add_switch(parser, "--csv", "the same, as CSV")
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> None:
    for list_path in args.lists:
        if args.show or args.csv:
            _show(list_path, args)
            continue
        root = known_root(list_path, args.root)
        # Labels matter only to training, and a missing file is a line of the summary.
        several = args.multi_label or known_multi_label(list_path)
        outside = args.allow_outside_root
        samples = read_list(list_path, root, MANY, outside, multi_label=several)
        join(list_path, args.join, args.index_dir)
        named, samples = sharded(list_path, samples, args.shard, args.index_dir)
        videos = counted_videos(
            named,
            root,
            samples,
            args.reader,
            index_dir=args.index_dir,
            num_workers=args.processes,
            time_limit=args.time_limit,
            limit_key="--time_limit",
        )
        print(printable_lines(_summary(named, videos)))
        print(f"  index: {index_path(named, args.index_dir)}")


def _show(list_path: Path, args: argparse.Namespace) -> None:
    """Print the index of a list, a row a video, in the order of their paths."""
    path = index_path(list_path, args.index_dir)
    index = read_index(path)
    if index is None:
        raise ValueError(f"{path}: there is no such index; leave out --show, and it is made")
    known = [index[row] for row in index.newest().tolist()]
    known.sort(key=lambda one: (one.path, one.requested))
    rows = [[one.path, *cells(one)] for one in known]
    table = pandas.DataFrame(rows, columns=["path", *COLUMNS]).drop(columns="holds").map(printable)
    if args.csv:
        print(table.to_csv(index=False), end="")
    else:
        print(table.to_string(index=False, justify="left", max_colwidth=WIDEST))


def _summary(list_path: Path, videos: Videos) -> str:
    """Return numbers and the first defects."""
    facts = [videos.facts(place) for place in range(len(videos))]
    errors = [one.error for one in facts if not one.num_frames]
    cut = [one.truncated for one in facts if one.truncated]
    served = Counter(one.reader for one in facts if one.num_frames)
    readers = ", ".join(f"{name} ({number})" for name, number in sorted(served.items()))
    lines = [
        f"{list_path}: {len(facts)} videos, {served.total()} readable, {len(errors)} unreadable, "
        f"{len(cut)} truncated; {sum(one.num_frames for one in facts)} frames",
        f"  readers: {readers or 'none'}",
    ]
    for title, entries in (("unreadable", errors), ("truncated", cut)):
        lines += [f"  {title}: {entry}" for entry in entries[:MOST_LISTED]]
        if len(entries) > MOST_LISTED:
            lines.append(f"  {title}: ... and {len(entries) - MOST_LISTED} more")
    return "\n".join(lines)
