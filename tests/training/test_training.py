"""Whole training runs: what they leave behind, resuming, several processes, unhappy endings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm
from conftest import ROOT, launch
from safetensors.torch import load_file, save_file

from vidadapt import config, methods
from vidadapt.config import command_line
from vidadapt.models.precision import NonFinite
from vidadapt.runs import checkpoints, resume
from vidadapt.training.class_terms import ClassTerms
from vidadapt.training.losses import classification_loss

TIMES = ("clips_per_second", "loader_wait_share", "train_seconds", "validate_seconds")


def log_of(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def trainer_of(run: Path) -> dict:
    """The state for resuming without what took time."""
    state = checkpoints.load_trainer(run / "last")
    for key in ("seconds", "train_seconds", "waited"):
        del state["progress"][key]
    for key in TIMES:
        state["progress"]["latest"].pop(key, None)
    return state


def assert_same_state(first: object, second: object) -> None:
    """Nested dicts and lists with bit-equal tensors."""
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_same_state(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert isinstance(second, (list, tuple))
        for a, b in zip(first, second, strict=True):
            assert_same_state(a, b)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_a_run_leaves_a_self_described_adapter_a_log_and_a_summary(tiny_set, run_tool, tmp_path):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(), "--run_dir", run)
    saved = load_file(run / "last" / "adapter.safetensors")
    about = json.loads((run / "last" / "adapter.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    # fc_norm + 6 adapters of width 64 + head; and BatchNorm's statistics, which are no parameters.
    trained = 2 * 192 + 6 * (2 * 192 * 64 + 64 + 192) + 193 * 3
    assert summary["trainable"] == trained
    assert sum(t.numel() for n, t in saved.items() if not n.startswith("head.0.")) == trained
    assert not any(name.startswith(("patch_embed", "blocks.0.block.")) for name in saved)
    assert about["method"]["name"] == "adaptformer"
    assert about["label_names"] == ["red", "green", "blue"]
    assert [line["epoch"] for line in log_of(run)] == [1, 2]
    assert {"train_loss", "lr", "dev_top1", "dev_top5"} <= log_of(run)[0].keys()
    assert summary["best"]["dev_top1"] == max(line["dev_top1"] for line in log_of(run))
    assert (run / "best" / "adapter.safetensors").is_file()
    assert any((run / "tensorboard").iterdir())
    environment = json.loads((run / "environment.json").read_text())
    assert "torch" in environment["packages"]
    assert environment["precision"] == trainer_of(run)["facts"]["precision"]


def test_without_a_development_list_there_is_no_best_and_the_last_is_reported(
    tiny_set, run_tool, tmp_path
):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(data__dev_list=None), "--run_dir", run)
    assert not (run / "best").exists()
    assert json.loads((run / "summary.json").read_text())["best"] is None
    assert "test_top1" in log_of(run)[-1]


def test_a_killed_run_resumed_equals_one_that_was_left_alone(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(
        train__epochs=4,
        method__dropout=0.3,
        train__mixup=0.8,
        train__cutmix=1.0,
        train__ema=0.9,
        train__optimizer="adamw",
        train__base_lr=0.05,
        train__precision="bf16",
        model__head="linear",
        data__rand_augment="true",
        data__repeated_augmentation=2,
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_tool("train", *options, "--run_dir", whole)

    command = [sys.executable, ROOT / "tools/train.py", *options, "--run_dir", killed]
    # The threads of the process that resumes, since the order of sums depends on them.
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 240
    while not (killed / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "last").exists()
    saved = checkpoints.load_trainer(checkpoints.find_checkpoint(killed / "last"))
    done = saved["progress"]["epoch"]
    assert done < 4, "the run ended before it could be killed"
    run_tool("train", *options, "--run_dir", killed, "--resume")

    assert log_of(killed) == log_of(whole)
    assert (killed / "steps.jsonl").read_text() == (whole / "steps.jsonl").read_text()
    for name in ("last", "best"):
        assert_same_state(
            load_file(killed / name / "adapter.safetensors"),
            load_file(whole / name / "adapter.safetensors"),
        )
    assert_same_state(trainer_of(killed), trainer_of(whole))


def test_a_finished_run_resumed_does_nothing(tiny_set, run_tool, tmp_path):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    before = (run / "last" / "adapter.safetensors").read_bytes()
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run, "--resume")
    assert (run / "last" / "adapter.safetensors").read_bytes() == before
    assert len(log_of(run)) == 1


def test_two_processes_learn_what_one_does(tiny_set, tmp_path):
    """The same global batches; without BatchNorm only the order of sums differs."""
    options = tiny_set.options(model__head="linear", train__accumulation=1)
    shared = tiny_set.options(model__head="linear", train__batch_size=2)
    launch("train", *options, "--run_dir", tmp_path / "one")
    launch("train", *shared, "--run_dir", tmp_path / "two", processes=2)
    one = load_file(tmp_path / "one" / "last" / "adapter.safetensors")
    two = load_file(tmp_path / "two" / "last" / "adapter.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


def test_accumulation_equals_the_larger_batch(tiny_set, run_tool, tmp_path):
    plain = tiny_set.options(model__head="linear")
    halved = tiny_set.options(model__head="linear", train__batch_size=2, train__accumulation=2)
    run_tool("train", *plain, "--run_dir", tmp_path / "plain")
    run_tool("train", *halved, "--run_dir", tmp_path / "halved")
    one = load_file(tmp_path / "plain" / "last" / "adapter.safetensors")
    two = load_file(tmp_path / "halved" / "last" / "adapter.safetensors")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


def test_full_fine_tuning_moves_every_backbone_tensor_that_has_a_use(tiny_set, run_tool, tmp_path):
    run = tmp_path / "run"
    options = tiny_set.options(
        train__optimizer="adamw", train__layer_decay=0.75, train__weight_decay=0.05,
        model__drop_path=0.1, train__label_smoothing=0.1, train__clip_grad=1.0,
    )  # fmt: skip
    run_tool("train", *options, "--method.name", "full", "--run_dir", run)
    before, after = load_file(tiny_set.weights), load_file(run / "last" / "adapter.safetensors")
    for name, tensor in before.items():
        assert not torch.equal(tensor, after[name]), name


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_files(
    tiny_set, run_tool, tmp_path
):
    run = tmp_path / "run"
    options = tiny_set.options(model__head="linear", train__base_lr=1e30, train__epochs=3)
    with pytest.raises(NonFinite, match=r"step \d+, on train \d+ \[x\]#.mp4"):
        run_tool("train", *options, "--run_dir", run)
    assert not (run / "last").exists()


def test_smoothing_and_soft_targets_are_the_textbook_cross_entropy():
    logits, labels = torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
    wanted = torch.full((4, 5), 0.1 / 5)
    wanted[torch.arange(4), labels] += 0.9
    by_hand = -(wanted * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification_loss(logits, labels, 0.1, ClassTerms()), by_hand)
    torch.testing.assert_close(classification_loss(logits, wanted, 0.1, ClassTerms()), by_hand)


# --- bad input: one clear error, before training, nothing overwritten -------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train_list": None}, r"data\.train_list"),
        ({"data__train_list": "nowhere.txt"}, r"nowhere\.txt"),
        ({"data__num_frames": 5}, r"num_frames is 5"),
        ({"data__crop_size": 40}, r"crop_size is 40"),
        ({"method__layers": "4-9"}, r"method\.layers: expected .*6 blocks, got '4-9'"),
        ({"train__batch_size": 1}, r"train\.batch_size: the BatchNorm .* needs 2 clips"),
        ({"train__batch_size": 16}, r"12 training samples .* fewer than one global batch of 16"),
        ({"train__warmup_epochs": 9}, r"train\.warmup_epochs: 9.0 are more than"),
        ({"model__drop_path": 0.1}, r"model\.drop_path: 0.1 has no effect"),
        ({"model__backbone": "vit_smal"}, r"did you mean vit_small"),
        ({"model__backbone": "vit_small"}, r"backbone\.safetensors"),
        ({"model__weights": "nowhere.pth"}, r"nowhere\.pth"),
        ({"data__label_names": None}, r"needs data\.label_names"),
        ({"data__dataset": "ssv3"}, r"did you mean ssv2"),
        ({"train__epoch": 3}, r"did you mean train\.epochs"),
        ({"train__epochs": 0}, r"train\.epochs: expected 1 or more"),
        ({"train__base_lr": ".nan"}, r"train\.base_lr: nan where a finite float is expected"),
        ({"train__ema": 0.9}, r"train\.ema: the statistics of the BatchNorm"),
        ({"model__position_grid": "[8,14]"}, r"model\.position_grid: expected \[t, h, w\]"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    tiny_set, run_tool, tmp_path, changes, message
):
    run = tmp_path / "run"
    with pytest.raises((ValueError, OSError), match=message):
        run_tool("train", *tiny_set.options(**changes), "--run_dir", run)
    assert {entry.name for entry in run.glob("*")} <= {"failure.json"}


def test_an_unreadable_training_video_is_named_or_left_out_and_counted(
    tiny_set, run_tool, tmp_path
):
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    (root / "train 3 [x]#.mp4").write_bytes(b"not a video")
    options = tiny_set.options(data__root=root, data__train_list=root / "train.txt")
    with pytest.raises(Exception, match=r"train 3 \[x\]#\.mp4"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert {entry.name for entry in (tmp_path / "run").glob("*")} <= {"failure.json"}
    options += ["--data.max_unreadable", "1"]
    run_tool("train", *options, "--run_dir", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(summary["left_out"]) == 1
    assert "train 3 [x]#.mp4" in summary["left_out"][0]


def test_a_video_in_two_lists_is_refused(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(data__dev_list=tiny_set.lists["test"])
    with pytest.raises(ValueError, match=r"dev_list and data\.test_list share 7 videos"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")


def test_an_occupied_folder_is_not_overwritten(tiny_set, run_tool, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty; continue it with --resume"):
        run_tool("train", *tiny_set.options(), "--run_dir", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written_is_refused(tiny_set, run_tool, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"run_dir: cannot write to .*file"):
        run_tool("train", *tiny_set.options(), "--run_dir", tmp_path / "file" / "run")


def test_a_resume_with_a_changed_configuration_names_the_change(
    tiny_set, run_tool, tmp_path, capsys
):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    before = (run / "last" / "adapter.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"train\.epochs: 1 -> 2"):
        run_tool("train", *tiny_set.options(train__epochs=2), "--run_dir", run, "--resume")
    with pytest.raises(ValueError, match="global_batch was 4, here it is 5"):
        saved = checkpoints.load_trainer(run / "last")
        resume.check_resumable(saved["facts"], {**saved["facts"], "global_batch": 5})
    options = tiny_set.options(train__epochs=1, train__batch_size=2)
    run_tool("train", *options, "--run_dir", run, "--resume")
    said = capsys.readouterr().out
    assert "1 processes: batch_size 2, accumulation 2; the global batch stays 4\n" in said
    assert (run / "last" / "adapter.safetensors").read_bytes() == before


def test_a_run_of_a_version_with_fewer_keys_resumes(tiny_set, run_tool, tmp_path):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    written = (run / "config.yaml").read_text()
    older = written.replace("  clip_grad: 0.0\n", "")
    assert older != written
    (run / "config.yaml").write_text(older)
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run, "--resume")
    (run / "config.yaml").write_text(older)
    with pytest.raises(ValueError, match=r"train\.clip_grad: 0\.0 -> 1\.0"):
        changed = tiny_set.options(train__epochs=1, train__clip_grad=1.0)
        run_tool("train", *changed, "--run_dir", run, "--resume")


def test_a_resume_on_another_backbone_or_list_is_refused(tiny_set, run_tool, tmp_path):
    """The paths are the same, what lies there is not; the finished run is left alone."""
    weights, listed = tmp_path / "weights.safetensors", tmp_path / "train.txt"
    shutil.copy(tiny_set.weights, weights)
    shutil.copy(tiny_set.lists["train"], listed)
    changes = {"model__weights": weights, "data__train_list": listed, "train__epochs": 1}
    command = [*tiny_set.options(**changes), "--run_dir", tmp_path / "run"]
    run_tool("train", *command)
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"manifests was .* restore it") as refused:
        run_tool("train", *command, "--resume")
    assert "'train'" in str(refused.value) and "'dev'" not in str(refused.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    shutil.copy(tiny_set.lists["train"], listed)
    tensors = load_file(weights)
    tensors["blocks.0.mlp.fc1.bias"][0] += 1
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"backbone was .* give the weights file"):
        run_tool("train", *command, "--resume")


@pytest.mark.slow
def test_processes_that_see_different_lists_stop_together(tiny_set, tmp_path):
    """As on two machines without a shared disk: rank 1 finds no index at the same place."""
    script = tmp_path / "own_folder.py"
    script.write_text(
        "import os, runpy, socket, sys\n"
        "socket.gethostname = lambda: 'machine ' + os.environ['RANK']\n"
        "os.chdir(os.path.join(sys.argv.pop(1), os.environ['RANK']))\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
        "sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    lines = tiny_set.lists["train"].read_text().splitlines()
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "train.txt").write_text("\n".join(lines[rank:]) + "\n")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(script), str(tmp_path), str(ROOT / "tools" / "train.py"),
        *tiny_set.options(data__train_list="train.txt", data__index_dir="index"),
        "--run_dir", "run",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    said = done.stderr.split("Root Cause")  # torchrun's report, which repeats it
    assert ["the processes see different video indexes" in part for part in said] == [True, True]


@pytest.mark.slow
def test_one_process_looks_at_every_file_once_for_all(tiny_set, tmp_path):
    script = tmp_path / "looking.py"
    script.write_text(
        "import os, runpy, sys\n"
        "from vidadapt.lists import counting\n"
        "honest, told = counting._stat, sys.argv.pop(1) + os.environ['RANK']\n"
        "def look(file):\n"
        "    with open(told, 'a') as log:\n"
        "        print(file, file=log)\n"
        "    return honest(file)\n"
        "counting._stat = look\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
        "sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    options = tiny_set.options(train__epochs=1)
    words = [tmp_path / "looks", warm.tool("train"), *options, "--run_dir", tmp_path / "run"]
    done = warm.run(script, *words, processes=2)
    assert done.returncode == 0, done.stderr
    looked_at = (tmp_path / "looks0").read_text().splitlines()
    assert sorted(looked_at) == sorted(map(str, tiny_set.root.glob("*.mp4")))
    assert not (tmp_path / "looks1").exists()


def test_a_truncated_trainer_state_is_named(tiny_set, run_tool, tmp_path):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    state = run / "last" / "trainer.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"no whole checkpoint is left: .*trainer\.pt is damaged"):
        run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run, "--resume")


@pytest.mark.slow
def test_an_error_ends_every_process_with_one_message(tiny_set, tmp_path):
    done = launch(
        "train", *tiny_set.options(data__num_frames=5), "--run_dir", tmp_path / "run",
        processes=2, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stderr.split("Root Cause")  # torchrun's report, which repeats it
    assert [part.count("error: num_frames is 5") for part in said] == [1, 1]
    assert "Traceback" not in done.stderr.split("ChildFailedError")[0].split("torch/distributed")[0]


@pytest.mark.slow
def test_a_file_that_breaks_under_one_process_ends_both(tiny_set, tmp_path):
    """Same size and time, so that the frame-count index cannot know: found while training."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    options = tiny_set.options(data__root=root, train__batch_size=2, data__dev_list=None)
    launch("train", *options, "--run_dir", tmp_path / "before", processes=2)
    broken = root / "train 3 [x]#.mp4"
    facts = broken.stat()
    broken.write_bytes(bytes(facts.st_size))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    done = launch("train", *options, "--run_dir", tmp_path / "run", processes=2, check=False)
    assert done.returncode != 0
    assert "train 3 [x]#.mp4" in done.stderr
    assert not (tmp_path / "run" / "last").exists()


def test_help_teaches_and_shows_the_options_of_the_method(run_tool, capsys):
    with pytest.raises(SystemExit) as ended:
        run_tool("train", "--method.name", "adaptformer", "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "torchrun" in shown
    assert "--method.bottleneck" in shown
    assert "learning rate per 256 clips" in shown


TRAININGS = sorted(p for p in (ROOT / "configs").glob("*/*.yaml") if p.parent.name != "sweeps")


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: p.name)
def test_every_shipped_config_parses_and_its_options_bind(path, run_tool):
    arguments = ["--config", str(path), "--run_dir", "x", "--data.train_list", "x"]
    cfg, _ = command_line.parse_train(arguments, methods.METHODS)
    config.check(cfg, 2)
    assert cfg.method["name"] in methods.METHODS
    assert methods.default_options(cfg.method["name"]).keys() <= cfg.method.keys()
