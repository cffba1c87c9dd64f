"""Results are there whole or not at all, and a full disk is told with file and mend."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vidadapt.evaluation import Scores, save_scores
from vidadapt.files import append_lines, write_json
from vidadapt.files.writing import WriteError, replaced
from vidadapt.lists import Sample, write_list
from vidadapt.models.plain import write_plain

LARGE = np.random.default_rng(0).random((50, 4, 10)).astype(np.float32)
SCORES = Scores(
    [f"{number}.mp4" for number in range(50)],
    np.zeros(50, np.int64),
    np.repeat([0, 1], 2),
    np.tile([0, 1], 2),
    LARGE,
    {},
)
WRITERS: dict[str, Callable[[Path], None]] = {
    "scores.npz": lambda path: save_scores(path, SCORES, {}),
    "metrics.json": lambda path: write_json(path, LARGE.tolist()),
    "log.jsonl": lambda path: append_lines(path, [{"epoch": 1, "more": LARGE.tolist()}]),
    "train.txt": lambda path: write_list(path, [Sample(f"{i}.mp4", 0) for i in range(999)]),
    "safetensors": lambda p: write_plain(p, {"a": torch.ones(999)}, "backbone", torch.float32),
    "torch.pth": lambda p: write_plain(p, {"a": torch.ones(999)}, "videomae", torch.float32),
}


def refused(write: Callable[[Path], None], path: Path) -> str:
    """What is said where no file may grow beyond 1000 bytes, in a child process."""
    inlet, outlet = os.pipe()
    pid = os.fork()
    if pid == 0:  # a limit of this process would also hold for the test runner's output
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            write(path)
        except WriteError as error:
            os.write(outlet, str(error).encode())
        finally:
            os._exit(0)
    os.close(outlet)
    os.waitpid(pid, 0)
    with os.fdopen(inlet) as file:
        return file.read()


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_text("before\n")
    said = refused(WRITERS[name], path)
    assert str(path) in said and "free some space" in said and "\n" not in said
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_bytes().startswith(b"before\n")
    if name != "log.jsonl":
        assert path.read_text() == "before\n"
    WRITERS[name](path)
    assert path.stat().st_size > 1000


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), replaced(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise KeyError
    assert [*tmp_path.iterdir()] == []
