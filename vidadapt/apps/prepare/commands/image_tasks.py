"""vidadapt prepare vtab, fgvc, nuswide: the image tasks of the papers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare import fgvc, nuswide, videos, vtab
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.build import build
from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.commands.writing import (
    add_parser,
    add_seed,
    add_shared,
    benchmark_command,
    build_options,
    end,
    find_files,
    summary,
    train_command,
)
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.write import check_folder
from vidadapt.console import printable_lines
from vidadapt.lists import FINAL_FOLDER, Prepared


def add(commands: options.Commands[options.Parser]) -> None:
    """Add the sub-commands."""
    title, example = "lists of the tasks of VTAB-1k", "vtab-1k lists/vtab"
    parser = add_parser(commands, "vtab", title, vtab.__doc__, example, _run_vtab)
    _add_folder(parser, "folder of the tasks' folders")
    about = "tasks to prepare (default: all that are there)"
    parser.add_argument("--tasks", nargs="+", choices=list(vtab.TASKS), metavar="NAME", help=about)
    parser.set_defaults(seed=0, dev_fraction=0.0)

    title, example = "lists of a set of FGVC", "CUB_200_2011 lists/fgvc/cub --set cub"
    parser = add_parser(commands, "fgvc", title, fgvc.__doc__, example, _run_fgvc)
    _add_folder(parser, "folder of the set")
    names = list(fgvc.NUM_CLASSES)
    parser.add_argument("--set", choices=names, required=True, help="which of the five it is")
    parser.set_defaults(seed=0, dev_fraction=0.0)

    title, example = "lists of NUS-WIDE", "NUS-WIDE lists/nuswide --allow_partial"
    parser = add_parser(commands, "nuswide", title, nuswide.__doc__, example, _run_nuswide)
    _add_folder(parser, "folder of the downloaded files")
    about = "of each concept's training images, taken out into dev.txt"
    options.add_option(parser, "--dev_fraction", float, 0.1, about)
    add_seed(parser)


def _add_folder(parser: options.Parser, about: str) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=about)
    add_shared(parser)


def _run_vtab(args: argparse.Namespace) -> None:
    """Write the lists of every task, and say which tasks there are."""
    if not args.folder.is_dir():
        raise ValueError(
            f"{args.folder}: no such folder; expected the folder of the tasks' folders"
        )
    here = [name for name in vtab.TASKS if (args.folder / name).is_dir()]
    if absent := [name for name in args.tasks or () if name not in here]:
        raise ValueError(f"--tasks: {args.folder} has no folder {', '.join(absent)}")
    chosen = [name for name in here if name in (args.tasks or here)]
    lacking = {name: vtab.missing_files(args.folder / name) for name in chosen}
    whole = [name for name in chosen if not lacking[name]]
    if not whole:
        known = ", ".join(vtab.TASKS)
        raise ValueError(f"{args.folder}: not one whole task; expected folders such as {known}")
    outs = [args.out / name / below for name in whole for below in ("", FINAL_FOLDER)]
    for out in outs:
        check_folder(out, "vtab")
    found = [_write_task(args, name) for name in whole]
    problems, missing = (any(values) for values in zip(*found, strict=True))
    lines = [f"\ntasks: {_counted(whole)}"]
    if gone := [name for name in vtab.TASKS if name not in here]:
        lines.append(f"not there: {', '.join(gone)}")
    halves = {name: files for name, files in lacking.items() if files}
    lines += [f"left out: {name} lacks {', '.join(files)}" for name, files in halves.items()]
    lines.append(f"\nto go on:\n  {benchmark_command('--frames', '1', '--tasks', str(args.out))}")
    print(printable_lines("\n".join(lines)))
    end(problems, missing or bool(halves), args.allow_partial)


def _counted(names: list[str]) -> str:
    """Say how many tasks there are of each group.

    >>> _counted(["cifar", "dtd", "kitti"])
    '3 of 19 (Natural 2 of 7, Specialised 0 of 4, Structured 1 of 8)'
    """
    groups = [task.group for task in vtab.TASKS.values()]
    own = [vtab.TASKS[name].group for name in names]
    of = ", ".join(f"{g} {own.count(g)} of {groups.count(g)}" for g in dict.fromkeys(groups))
    return f"{len(names)} of {len(groups)} ({of})"


def _write_task(args: argparse.Namespace, name: str) -> tuple[bool, bool]:
    """Write both folders of lists of a task; return whether it has problems and lacks files."""
    folder, out = args.folder / name, args.out / name
    files, report = find_files(folder, "images", args)
    search = vtab.read(folder, name, vtab.SEARCH_LISTS, report)
    about = {"task": name, "group": vtab.TASKS[name].group}
    known = (out, out / FINAL_FOLDER)
    _write(args, search, files, out, report, about, known)
    again = Report()
    final = vtab.read(folder, name, vtab.FINAL_LISTS, again)
    vtab.check_final(search, final, again)
    _write(args, final, files, out / FINAL_FOLDER, again, about, known)
    return bool(report.problems or again.problems), bool(report.missing or again.missing)


def _run_fgvc(args: argparse.Namespace) -> None:
    """Write the lists of a set of FGVC."""
    check_folder(args.out, "fgvc")
    files, report = find_files(fgvc.image_folder(args.folder, args.set), "images", args)
    annotations = fgvc.read(args.folder, args.set, report)
    prepared = _write(args, annotations, files, args.out, report, {"set": args.set}, (args.out,))
    print(printable_lines(f"\nto go on:\n  {train_command(args.out, prepared)}"))
    end(bool(report.problems), bool(report.missing), args.allow_partial)


def _run_nuswide(args: argparse.Namespace) -> None:
    """Write the lists of NUS-WIDE."""
    check_folder(args.out, "nuswide")
    files, report = find_files(args.folder, "images", args)
    annotations = nuswide.read(files, report)
    prepared = _write(args, annotations, files, args.out, report, {}, (args.out,))
    print(printable_lines(f"\nto go on:\n  {train_command(args.out, prepared)}"))
    end(bool(report.problems), bool(report.missing), args.allow_partial)


def _write(
    args: argparse.Namespace,
    annotations: Annotations,
    files: videos.Files,
    out: Path,
    report: Report,
    about: Mapping[str, Any],
    known: tuple[Path, ...],
) -> Prepared:
    """Write one folder of lists, and print its summary.

    Args:
        about: of the set, for prepared.json.
        known: folders of lists of the same files.
    """
    fractions = {"dev_fraction": args.dev_fraction, "test_fraction": 0.0}
    made_by = {"command": args.command, "folder": str(args.folder), **about, **fractions}
    made_by |= {"seed": args.seed, "allow_partial": args.allow_partial}
    how = build_options(args, fractions, known)
    prepared = build(annotations, files, out, report, options=how, made_by=made_by)
    print(printable_lines(summary(out, prepared, report)))
    return prepared
