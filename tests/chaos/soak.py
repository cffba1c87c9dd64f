"""A long training with two loader processes: is what it holds on to flat?

    python tests/chaos/soak.py [--steps 2000]

Memory, shared memory and open files of the training and all processes below it, from /proc once a
second, as medians over tenths of the run. After the first tenth none may grow by more than `SLACK`;
the exit status is 1 where one does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import make_tiny_set  # noqa: E402

STEPS_PER_EPOCH = 60  # 12 videos x 10 clips, batches of 2
# By how much each may grow after the first tenth, in its unit: the allocator's pools move by a few
# MB, and batches on their way hold files. Of what leaks once an epoch there would be 30.
SLACK = {"memory": 40, "shared": 1, "files": 10, "processes": 0}


@dataclass(frozen=True)
class Sample:
    """Of a process and all below it; sizes in MB, what several share counted once."""

    memory: float
    shared: float
    files: float
    processes: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    epochs = -(-parser.parse_args().steps // STEPS_PER_EPOCH)
    with tempfile.TemporaryDirectory(prefix="vidadapt_soak_") as name:
        folder, before = Path(name), {path.name for path in Path("/dev/shm").iterdir()}
        options = make_tiny_set(folder / "tiny_set").options(
            train__epochs=epochs,
            train__batch_size=2,
            train__base_lr=0.01,
            data__repeated_augmentation=10,
            data__num_workers=2,
        )
        tool = str(ROOT / "tools" / "train.py")
        with (folder / "output.txt").open("w") as output:
            training = subprocess.Popen(
                [sys.executable, tool, *options, "--run_dir", str(folder / "run")],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
            )
            samples = []
            log = folder / "run" / "log.jsonl"
            while training.poll() is None:
                if log.exists():
                    samples.append(sample(training.pid))
                time.sleep(1)
        if training.returncode:
            print((folder / "output.txt").read_text())
            return 1
    left = {path.name for path in Path("/dev/shm").iterdir()} - before
    return report(samples[:-1], epochs * STEPS_PER_EPOCH, left)


def report(samples: list[Sample], steps: int, left: set[str]) -> int:
    """Print the tenths, and say whether they are flat."""
    size = len(samples) // 10
    tenths = [
        Sample(*map(statistics.median, zip(*map(astuple, samples[k * size :][:size]), strict=True)))
        for k in range(10)
    ]
    print("up to step   memory MB   shared MB   open files   processes")
    for number, found in enumerate(tenths, start=1):
        figures = f"{found.memory:12.1f}{found.shared:12.1f}{found.files:13.0f}"
        print(f"{steps * number // 10:10d}{figures}{found.processes:12.0f}")
    warm, last = vars(tenths[1]), vars(tenths[-1])
    grown = [name for name, slack in SLACK.items() if last[name] > warm[name] + slack]
    print(f"{steps} steps: {', '.join(grown) + ' grew' if grown else 'flat'}; "
          f"{len(left)} new files in /dev/shm afterwards")  # fmt: skip
    return int(bool(grown or left))


def sample(root: int) -> Sample:
    memory = shared = files = 0.0
    tree = below(root)
    for pid in tree:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in ("Pss", "Pss_Shmem"):
                    megabytes = int(value.split()[0]) * 1024 / 1e6
                    memory += megabytes * (key == "Pss")
                    shared += megabytes * (key == "Pss_Shmem")
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:  # it has just ended
            continue
    return Sample(memory, shared, files, len(tree))


def below(root: int) -> list[int]:
    """This process and its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


if __name__ == "__main__":
    sys.exit(main())
