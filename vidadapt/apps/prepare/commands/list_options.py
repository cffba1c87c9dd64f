"""Shared parts of the sub-commands that write lists: options, the work and its summary."""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from vidadapt.apps.prepare import archives, videos
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.build import REPORT, Options, build
from vidadapt.apps.prepare.commands.options import add_time_limit, processes
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.unpacking import RATIO
from vidadapt.apps.prepare.write import check_folder
from vidadapt.console.naming import printable_lines
from vidadapt.data.workers import cores
from vidadapt.lists.prepared import Prepared
from vidadapt.lists.reading import LABELS, read_label_names, read_list
from vidadapt.video import READERS

Read = Callable[[videos.Files, Report], Annotations]

WRITTEN = """
OUT gets train.txt and its like ('path label'), labels.txt, prepared.json and report.txt, and the
frames of every video are counted. Exit status 1: not all is as the source promises, and the report
says what is not; the lists are written all the same.
"""


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    title: str,
    layout: str | None,
    example: str,
) -> argparse.ArgumentParser:
    """Add a sub-command whose help shows the layout of a download."""
    parser = commands.add_parser(
        name,
        help=title,
        description=layout,
        epilog=f"{WRITTEN}\nexample: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    return parser


def add_shared(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None]) -> None:
    """Add the argument OUT after the existing ones, and the options that all lists share."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of lists taken out (default: 0)")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="exit with 0 where videos are merely missing; they are reported all the same",
    )
    parser.add_argument(
        "--unpack", action="store_true", help="unpack archives that lie among the videos"
    )
    parser.add_argument(
        "--unpack-limit",
        type=_gigabytes,
        metavar="GB",
        help="that may come out of the archives of one folder, in units of 10^9 bytes (default: "
        f"{RATIO} times their size)",
    )
    parser.add_argument(
        "--no-index",
        action="store_true",
        help="leave counting frames, and finding videos that cannot be read, to the first training",
    )
    parser.add_argument(
        "--reader",
        choices=list(READERS),
        default="auto",
        help="as data.reader of the training (default: auto)",
    )
    parser.add_argument(
        "--processes",
        type=processes,
        default=cores(),
        help="for comparing and counting (default: one per processor)",
    )
    add_time_limit(parser)
    parser.set_defaults(run=run)


def prepare(
    args: argparse.Namespace,
    reads: Mapping[Path, Read],
    *,
    fractions: Callable[[Annotations], tuple[float, float]],
) -> None:
    """Find the videos, write each folder of lists, and print a summary of each.

    Args:
        args: with the options of `add_shared`, and `videos`, a folder.
        reads: reader of the annotations, by folder to write.
        fractions: of training videos to take out into dev, and of all videos into test.

    Raises:
        SystemExit: with status 1 where something is not as the source promises.
    """
    for out in reads:
        check_folder(out, args.command)
    common = Report()
    files = videos.find(args.videos, common)
    packed = archives.find(files.root, files.others)
    if packed and args.unpack:
        common = Report()
        archives.unpack(packed, common, limit=args.unpack_limit)
        files = videos.find(args.videos, common)
    sources = ("annotations", "table", "label_names")
    given = {name: str(getattr(args, name)) for name in sources if getattr(args, name, None)}
    problems = missing = False
    for out, read in reads.items():
        report = copy.deepcopy(common)
        try:
            annotations = read(files, report)
        except ValueError as error:
            if not common.problems:
                raise
            raise ValueError(f"{error}\n{common.text()}") from error  # they may be the cause
        dev, test = fractions(annotations)
        options = Options(
            dev_fraction=dev,
            test_fraction=test,
            seed=args.seed,
            reader=args.reader,
            index=not args.no_index,
            known=tuple(reads),
            processes=args.processes,
            time_limit=args.time_limit,
        )
        made_by = {"command": args.command, **given, "dev_fraction": dev, "test_fraction": test}
        made_by |= {"seed": args.seed, "allow_partial": args.allow_partial}
        prepared = build(annotations, files, out, report, options=options, made_by=made_by)
        print(printable_lines(_summary(out, prepared, report)))
        problems |= bool(report.problems)
        missing |= bool(report.missing)
    if problems:
        sys.exit("prepare: not all is as the source promises: see the problems above")
    if missing and not args.allow_partial:
        sys.exit(
            "prepare: not all is there that the source promises: see what is missing above, or add "
            "--allow-partial where that is meant so"
        )


def _gigabytes(text: str) -> int:
    if not (size := float(text)) > 0:
        raise ValueError
    return round(size * 1e9)


def _summary(out: Path, prepared: Prepared, report: Report) -> str:
    names = read_label_names(out / LABELS)
    lines = [f"{out}: {prepared.dataset}, {len(names)} classes, videos in {prepared.root}"]
    for name, file in prepared.lists.items():
        samples = read_list(out / file, prepared.root, len(names))
        counts = Counter(sample.label for sample in samples)
        least, most = (pick(range(len(names)), key=lambda i: counts[i]) for pick in (min, max))
        spread = f"{counts[least]} of each class"
        if counts[least] != counts[most]:
            spread = f"{counts[least]} ({names[least]}) to {counts[most]} ({names[most]}) a class"
        lines.append(f"  {file} ({name}): {len(samples):,} videos, {spread}")
    if report.text():
        lines += [report.text(), f"all of it: {out / REPORT}"]
    lines += ["", "to go on:", f"  {_train_command(out, prepared)}"]
    return "\n".join(lines)


def _train_command(out: Path, prepared: Prepared) -> str:
    known = prepared.dataset in ("ssv2", "hmdb51")
    words = ["python", "tools/train.py", "--config"]
    words += [f"configs/{prepared.dataset if known else 'hmdb51'}/adaptformer.yaml"]
    words += [] if known else ["--data.dataset", prepared.dataset, "--data.sampling", "uniform8"]
    words += ["--data.lists", str(out), "--model.weights", "WEIGHTS", "--run_dir", "RUN"]
    return shlex.join(words)
