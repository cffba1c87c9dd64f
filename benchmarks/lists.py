"""Large lists: what they cost a loader worker, and the start of a training run on many processes.

The index of a list is written by its own writer, with the facts of one small generated video for
every listed one; the listed files are hard links to copies of it. Nothing else is decoded.

* worker: the data set of a training loader is loaded from its pickle in a fresh process, as a
  loader worker does: seconds (pickling included), and memory that is this process's alone after
  a number of videos was looked up, beside the same for a short list.
* start: processes under torchrun read the list, look up its files, and take their first batch:
  seconds since the command was given (Python and torch included, no model), resident memory of the
  largest process without its loader's, and how many files were looked at by all of them together.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.footage import FOOTAGE, generate
from benchmarks.report import targets_table
from benchmarks.timing import Target
from vidadapt import data, methods
from vidadapt.apps.report import markdown_table
from vidadapt.config import parse_train
from vidadapt.files import write_json
from vidadapt.lists import CountJob, add_to_index, count_file, index_path, read_list
from vidadapt.video import VideoFacts

NUM_CLASSES = 174
LINKS = 30_000  # to one file; ext4 allows 65,000
AT_ONCE = 200_000  # rows of a segment of the index
SHORT = 100  # videos of the list that the others are compared with


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        rows = [measured(number, args, Path(folder)) for number in (SHORT, *args.videos)]
    short, *long = rows
    targets = []
    for row in long:
        name = f"{row['videos']:,} listed videos"
        worker = f"{name}: a loader worker's own memory beyond {SHORT} videos', MB"
        goals = [
            (worker, 5.0, row["worker_mb"] - short["worker_mb"]),
            (f"{name}: a loader worker's start, s", 0.1, row["worker_seconds"]),
            (f"{name}: first batch after, s", 15.0, row["first_batch_seconds"]),
            (
                f"{name}: memory of a process beyond {SHORT} videos', GB",
                0.35,
                row["process_gb"] - short["process_gb"],
            ),
            (f"{name}: looks at a file", 1.0, row["looks"] / row["videos"]),
        ]
        targets += [Target(what, goal, "<=", found).as_dict() for what, goal, found in goals]
    print(table(rows))
    print(targets_table(targets), file=sys.stderr)
    if args.json is not None:
        settings = {key: str(value) for key, value in vars(args).items() if key != "json"}
        result = {"table": "lists", "settings": settings, "rows": rows, "targets": targets}
        write_json(args.json, result)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--videos", type=int, nargs="+", default=[169_000, 1_000_000], help="(%(default)s)"
    )
    parser.add_argument("--processes", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--dir", type=Path, help="folder for the files; default: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def measured(number: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A row of the table."""
    generate(FOOTAGE["mp4"], 1, folder / "source")
    listed = written(number, folder / str(number), [*(folder / "source").rglob("*.mp4")])
    words = [word for pair in options_of(listed) for word in pair]
    row = {"videos": number, **of_worker(words)}
    command = [
        *("-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(args.processes), "-m", "benchmarks.lists_start"),
    ]
    began = {"BENCHMARK_BEGAN": str(time.time()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **began},
    )
    if done.returncode:
        sys.exit(f"lists: {done.stderr}")
    row |= json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(folder / str(number))
    return row


def written(number: int, folder: Path, sources: Sequence[Path]) -> Path:
    """A list of so many videos, which are links to copies of the sources in turn, and its index."""
    ending = sources[0].suffix
    paths = [f"videos/{place // 1000:04d}/{place:08d}{ending}" for place in range(number)]
    for place, path in enumerate(paths):
        source = place % len(sources)
        copy = folder / f"copy{place // LINKS}_{source}{ending}"
        if place % 1000 == 0:
            (folder / path).parent.mkdir(parents=True)
        if not copy.exists():
            shutil.copy2(sources[source], copy)
        os.link(copy, folder / path)
    listed = folder / "train.txt"
    listed.write_text(
        "".join(f"{path} {place % NUM_CLASSES}\n" for place, path in enumerate(paths)),
        encoding="utf-8",
    )
    (folder / "labels.txt").write_text("".join(f"class {k}\n" for k in range(NUM_CLASSES)))
    known = [_counted(source) for source in sources]
    for first in range(0, number, AT_ONCE):
        places = range(first, min(first + AT_ONCE, number))
        rows = (replace(known[place % len(known)], path=paths[place]) for place in places)
        add_to_index(index_path(listed), rows)
    return listed


def _counted(source: Path) -> VideoFacts:
    state = source.stat()
    return count_file(CountJob(str(source), "", "auto", state.st_size, state.st_mtime_ns))


def options_of(listed: Path) -> Iterator[tuple[str, str]]:
    """Options of a training run on a list."""
    yield "--run_dir", str(listed.parent / "run")
    yield "--method.name", "linear"
    for key, value in {
        "root": listed.parent,
        "train_list": listed,
        "label_names": listed.with_name("labels.txt"),
        "sampling": "uniform8",
        "crop_size": 64,
        "num_workers": 1,
    }.items():
        yield f"--data.{key}", str(value)


def of_worker(words: Sequence[str]) -> dict[str, float]:
    """What the data set of a training loader costs a process that loads it."""
    cfg, _ = parse_train(list(words), methods.METHODS)
    plan = data.resolve(cfg.data, cfg.eval)
    samples = read_list(str(cfg.data.train_list), cfg.data.root, plan.num_classes)
    videos = data.load_list(cfg.data, plan, str(cfg.data.train_list), samples, training=True)
    loader = data.train_loader(cfg.data, plan, videos, batch_size=8, seed=0)
    began = time.perf_counter()
    pickled = pickle.dumps(loader.dataset)
    pickling = time.perf_counter() - began
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lists_worker"],
        input=pickled,
        capture_output=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return {
        "pickle_mb": len(pickled) / 1e6,
        "worker_mb": found["mb"],
        "worker_seconds": pickling + found["seconds"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    columns = {
        "pickle_mb": "pickle MB",
        "worker_mb": "worker MB",
        "worker_seconds": "worker s",
        "looked_up_seconds": "lists s",
        "first_batch_seconds": "first batch s",
        "process_gb": "process GB",
        "private_gb": "its own GB",
        "looks": "looks at files",
    }
    shown = [[f"{row['videos']:,}", *(f"{row[key]:,.3g}" for key in columns)] for row in rows]
    return markdown_table(["videos", *columns.values()], shown)


if __name__ == "__main__":
    main()
