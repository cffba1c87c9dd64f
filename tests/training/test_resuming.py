"""Runs that are interrupted in mid-epoch, and checkpoints that are damaged."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from test_training import assert_same_state, log_of, trainer_of

from vidadapt.config import TrainConfig
from vidadapt.data.skips import SKIPPED, read_skips
from vidadapt.files.writing import WriteError
from vidadapt.runs import checkpoints, resume

pytestmark = pytest.mark.slow  # whole runs in processes of their own

STEPS = 6  # of an epoch: 12 videos twice, 2 x 2 clips

GRADIENTS = """
import sys, torch
from torch import nn
from vidadapt import distributed
from vidadapt.distributed import GradientMeans, gradients
from vidadapt.launching import start
from vidadapt.models import over_all_processes, without_clips

gradients.EXCHANGED_AT_ONCE = int(sys.argv[1])
world = start.start()
share = (1.0, 0.5, 0.0)[world.rank]
torch.manual_seed(0)
backbone = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 8), nn.Linear(8, 8))
backbone[2].weight.requires_grad_(False)
backbone.register_parameter("unused", nn.Parameter(torch.ones(3)))  # has no gradient anywhere
if "head" in sys.argv:
    backbone.requires_grad_(False)
head = nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 5))
over_all_processes(head, lambda tensor: distributed.total_over_ranks(world, tensor))
model = nn.Sequential(backbone, head)
means = GradientMeans(world, model, head)
torch.manual_seed(1 + world.rank)
clips = [torch.randn(6, 4) for _ in range(2)]

def passes(early):
    model.zero_grad()
    for micro, batch in enumerate(clips):
        if micro and early:
            means.begin_in_backward()
        if share:
            (model(batch).square().sum() * share).backward()
        else:
            without_clips(head)

found = {}
for early in (False, True, True):
    passes(False)
    own = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    everyones = distributed.gather_objects(world, own)
    passes(early and share > 0)
    told = means.average(share, (world.rank, 1))
    assert told.tolist() == [1.5, 3.0, 3.0], told
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        given = [own[number] for own in everyones if own[number] is not None]
        wanted = sum(given, torch.zeros_like(parameter)) / 1.5
        torch.testing.assert_close(parameter.grad, wanted, msg=name)
        assert torch.equal(parameter.grad, found.setdefault(name, parameter.grad)), name
lengths = [
    distributed.mean_over_ranks(world, torch.arange(n) / 7 + 0.1 * world.rank) for n in (1, 5, 33)
]
assert torch.equal(lengths[2][:5], lengths[1])
assert torch.equal(lengths[1][:1], lengths[0])
distributed.require_equal_weights(world, {"a": torch.ones(2)})
try:
    distributed.require_equal_weights(world, {"a": torch.ones(2) * world.rank})
except ValueError:
    print("refused")
start.stop()
"""


@pytest.fixture(scope="module")
def recipe(tiny_set) -> list[str]:
    """Everything that draws at random or keeps a state."""
    return tiny_set.options(
        train__epochs=2,
        train__batch_size=2,
        train__accumulation=2,
        method__dropout=0.3,
        train__mixup=0.8,
        train__cutmix=1.0,
        train__ema=0.9,
        train__optimizer="adamw",
        train__base_lr=0.05,
        train__precision="bf16",
        train__clip_grad=1.0,
        model__head="linear",
        data__rand_augment="true",
        data__repeated_augmentation=2,
        train__checkpoint_steps=1,
    )


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert start(recipe, run).wait() == 0
    return run


def start(options: list[str], run: Path, *more: str, processes: int = 1) -> Any:
    """A training under way: `subprocess.Popen`, or what is like it."""
    words = [*options, "--run_dir", str(run), *more]
    if processes == 1:
        return warm.start(warm.tool("train"), *words, joined=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return subprocess.Popen(
        [*command, str(processes), str(warm.tool("train")), *words],
        env={**os.environ, **warm.FIXED},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def interrupted(options: list[str], run: Path, by: int, processes: int = 1) -> tuple[int, str]:
    """Start a run and end it once it has a checkpoint; its exit status and what it printed."""
    child = start(options, run, processes=processes)
    deadline = time.monotonic() + 240
    while not (run / "last").exists():
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(by)
    said, _ = child.communicate()
    return child.returncode, said


def resumed(options: list[str], run: Path, processes: int = 1) -> str:
    return finished([*options, "--resume"], run, processes)


def finished(options: list[str], run: Path, processes: int) -> str:
    """Train to the end; what it printed."""
    words = [*options, "--run_dir", str(run)]
    done = warm.run(warm.tool("train"), *words, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_same_run(run: Path, whole: Path) -> None:
    assert log_of(run) == log_of(whole)
    assert (run / "steps.jsonl").read_text() == (whole / "steps.jsonl").read_text()
    assert_same_state(trainer_of(run), trainer_of(whole))
    for name in ("last", "best"):
        assert_same_state(
            checkpoints.load_checkpoint(run / name)[0],
            checkpoints.load_checkpoint(whole / name)[0],
        )


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_a_run_interrupted_in_mid_epoch_equals_one_that_was_left_alone(
    recipe, uninterrupted, tmp_path, by
):
    run = tmp_path / "run"
    status, said = interrupted(recipe, run, by)
    found = checkpoints.find_checkpoint(run / "last")
    assert found is not None
    saved = checkpoints.load_trainer(found)["progress"]
    assert 0 < saved["consumed"] < STEPS * 4 or saved["epoch"] == 1
    if by == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 128 + by
        assert f"stopped by {signal.Signals(by).name}; continue with --resume" in said
    assert f"and {saved['consumed']} clips" in resumed(recipe, run) or not saved["consumed"]
    assert_same_run(run, uninterrupted)


def test_a_stopped_run_goes_on_with_other_processes_and_the_same_global_batch(
    recipe, uninterrupted, tmp_path
):
    run = tmp_path / "run"
    interrupted(recipe, run, signal.SIGTERM)
    shutil.copytree(run, tmp_path / "three")
    said = resumed(recipe, run, processes=2)
    assert "2 processes after 1: batch_size 2, accumulation 1; the global batch stays 4" in said
    one, two = trainer_of(run), trainer_of(uninterrupted)
    for name, tensor in one["trained"].items():
        torch.testing.assert_close(tensor, two["trained"][name], rtol=0.05, atol=2e-3)
    steps = (run / "steps.jsonl").read_text().splitlines()
    assert len(steps) == 2 * STEPS
    said = resumed(recipe, tmp_path / "three", processes=3)
    assert "warning: the global batch changes from 4 to 6" in said


@pytest.mark.parametrize(
    "processes", [(4, 2, 2), (4, 2, 1, 4), (4, 3, 3), (4, 3, 4, 4), (1, 8, 8, 1), (2, 4, 3, 3, 2)]
)
def test_one_command_stays_good_on_any_numbers_of_processes_in_turn(processes):
    asked = TrainConfig(batch_size=16, accumulation=1)
    first, *others = processes
    facts: dict[str, Any] = dict.fromkeys(("backbone", "precision", "manifests", "cached"), "same")
    facts |= {"processes": first, "global_batch": 16 * first}
    for number in others:
        train = resume.shared_among(number, asked, facts)
        now = {
            **facts,
            "processes": number,
            "global_batch": train.batch_size * train.accumulation * number,
        }
        resume.check_resumable(facts, now)
        if facts["global_batch"] % number == 0:
            assert now["global_batch"] == facts["global_batch"]
        facts = now


def test_four_processes_stopped_and_resumed_equal_four_that_were_left_alone(tiny_set, tmp_path):
    """All weights are exchanged; BatchNorm's statistics differ until the end of an epoch."""
    alone = tiny_set.options(
        method__name="full",
        train__base_lr=0.05,
        train__batch_size=2,
        data__repeated_augmentation=2,
    )
    options = [*alone, "--train.checkpoint_steps", "1"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    finished(alone, whole, processes=4)
    interrupted(options, run, signal.SIGTERM, processes=4)
    assert checkpoints.load_trainer(run / "last")["progress"]["consumed"] > 0
    resumed(options, run, processes=4)
    assert_same_run(run, whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(recipe, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    file = run / "last" / checkpoints.TRAINER
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    said = resumed(recipe, run)
    assert "trainer.pt is damaged" in said
    assert "last.1 in its place" in said
    assert_same_run(run, uninterrupted)

    for name in (checkpoints.TRAINER, checkpoints.CHECKSUMS):
        (run / "last" / name).unlink()
    assert "trainer.pt is missing; using" in resumed(recipe, run)
    assert_same_run(run, uninterrupted)

    written = (run / "config.yaml").read_bytes()
    for content in (b"", written[:100] + b"\n{", bytes(100)):
        (run / "config.yaml").write_bytes(content)
        child = start(recipe, run, "--resume")
        said, _ = child.communicate()
        assert child.returncode == 2 and said.startswith("error: run_dir: "), said
        assert "config.yaml" in said and "Traceback" not in said, said
    (run / "config.yaml").write_bytes(written)

    for folder in run.glob("last*"):
        (folder / checkpoints.TENSORS).write_bytes(b"")
    child = start(recipe, run, "--resume")
    said, _ = child.communicate()
    assert child.returncode == 2
    assert "error: no whole checkpoint is left" in said


def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path):
    folder, tensors = tmp_path / "last", {"a": torch.arange(1000.0)}
    checkpoints.save_checkpoint(folder, tensors, {"number": 1}, {"b": torch.zeros(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:  # a limit of this process would also hold for the test runner's output
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            checkpoints.save_checkpoint(folder, tensors, {"number": 2})
        except WriteError as error:
            os._exit(7 if "the previous one is unharmed" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    found, about = checkpoints.load_checkpoint(folder)
    assert about == {"number": 1}
    assert torch.equal(found["a"], tensors["a"])
    assert checkpoints.damage(folder) is None
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_the_last_checkpoints_stay_and_a_crash_between_renames_loses_none(tmp_path):
    folder = tmp_path / "last"
    for number in range(4):
        checkpoints.save_checkpoint(folder, {}, {"number": number}, keep=2)
    numbers = {
        path.name: checkpoints.load_checkpoint(path)[1]["number"] for path in tmp_path.iterdir()
    }
    assert numbers == {"last": 3, "last.1": 2}
    folder.rename(tmp_path / "last.2")  # as far as a crash may have come
    (tmp_path / "last.1").rename(tmp_path / "last.3")
    found = checkpoints.find_checkpoint(folder)
    assert found is not None
    assert checkpoints.load_checkpoint(found)[1]["number"] == 3
    checkpoints.save_checkpoint(folder, {}, {"number": 4}, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"last", "last.2"}


def test_what_is_skipped_counts_in_no_mean_on_any_number_of_processes(tiny_set, tmp_path):
    """A file that breaks after its frames were counted, on two processes and on one."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    options = tiny_set.options(
        data__root=root, data__max_skipped=2, model__head="linear", train__epochs=1
    )
    halved = [*options, "--train.batch_size", "2"]
    finished(options, tmp_path / "before", 1)
    broken = root / "train 3 [x]#.mp4"
    facts = broken.stat()
    broken.write_bytes(bytes(facts.st_size))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    found, accuracies = {}, {}
    for processes, words in {1: options, 2: halved}.items():
        run = tmp_path / str(processes)
        assert "skipped: 1 clips" in finished(words, run, processes)
        [skip] = read_skips(run / SKIPPED)
        assert skip.path.endswith("train 3 [x]#.mp4")
        found[processes] = [line["train_loss"] for line in log_of(run)], trainer_of(run)["trained"]
        steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
        accuracies[processes] = [step["top1"] for step in steps]
    assert found[1][0] == pytest.approx(found[2][0], abs=1e-5)
    # Three steps, one of which has three clips in the place of four.
    assert accuracies[1] == accuracies[2]
    assert len({*accuracies[1]} - {0, 25, 50, 75, 100}) <= 1
    for name, tensor in found[1][1].items():
        torch.testing.assert_close(tensor, found[2][1][name], rtol=1e-3, atol=1e-5)
    none = [*options, "--data.max_skipped", "0"]
    child = start(none, tmp_path / "none")
    said, _ = child.communicate()
    assert child.returncode == 3
    assert (
        "error: 1 training clip(s) of epoch 1 had to be skipped, data.max_skipped allows 0" in said
    )
    assert "train 3 [x]#.mp4" in said


@pytest.mark.parametrize("words", [(1,), (30,), (10_000,), (1, "head")])
def test_gradients_are_averaged_over_the_clips_that_were_there(tmp_path, words):
    """On three processes, of which one has half of its clips and one has none."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    done = warm.run(script, *words, processes=3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 3
