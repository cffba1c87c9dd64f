"""Training from features that were computed once, against training from clips."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import misbehaving
import numpy as np
import pytest
import torch
import xxhash
from conftest import ALONE, launch, load_tool
from numpy.lib.format import open_memmap
from safetensors.torch import load_file
from videos import grey_frames, write_video

from vidadapt import data
from vidadapt.data import Augmentation
from vidadapt.features.store import (
    THERE,
    UNREADABLE,
    CacheError,
    Kept,
    Reader,
    Store,
    create,
    marks,
    writing_rows,
)
from vidadapt.training import validation
from vidadapt.video import ReadError

LINEAR = ("--method.name", "linear")
LOSA = ("--method.name", "losa")
UPPER = ("--method.layers", "4-6")

# Method and head -> what the command line says beyond `TinySet.options`.
RECIPES = {
    "linear": (*LINEAR, "--model.head", "batchnorm_linear"),
    "attentive": (*LINEAR, "--model.head", "attentive"),
    "losa": (*LOSA, "--model.head", "linear", "--method.dropout", "0.2"),
    "adaptformer": (*UPPER, "--model.head", "linear", "--method.dropout", "0.2"),
}
# Two epochs of two copies each: four draws.
COPIES = ("--data.repeated_augmentation", "2", "--data.flip", "true")


def steps_of(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "steps.jsonl").read_text().splitlines()]


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "adapter.safetensors")


def accuracies_of(run: Path) -> list[float]:
    return [json.loads(line)["dev_top1"] for line in (run / "log.jsonl").read_text().splitlines()]


def assert_alike(first: Path, second: Path, tolerance: float) -> None:
    """Losses of all steps and the trained tensors, within a tolerance."""
    np.testing.assert_allclose(steps_of(first), steps_of(second), rtol=0, atol=tolerance)
    one, two = tensors_of(first), tensors_of(second)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=tolerance, msg=name)


def filled_by(run: Path) -> int:
    return json.loads((run / "summary.json").read_text())["cache"]["clips"]


def rows_of(folder: Path, mode: str = "r") -> np.ndarray:
    return open_memmap(folder / "rows.npy", mode)


def marks_of(folder: Path) -> list[int]:
    return np.load(folder / "marks.npy").tolist()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


@pytest.mark.parametrize("recipe", RECIPES)
def test_with_enough_draws_a_run_is_that_without_a_cache(tiny_set, run_tool, tmp_path, recipe):
    options = [*tiny_set.options(), *RECIPES[recipe], *COPIES]
    run_tool("train", *options, "--run_dir", tmp_path / "plain")
    cache = ("--cache.dir", tmp_path / "cache", "--cache.draws", "4")
    run_tool("train", *options, *cache, "--run_dir", tmp_path / "cached")
    assert filled_by(tmp_path / "cached") == 4 * 12 + 5
    assert_alike(tmp_path / "plain", tmp_path / "cached", 1e-5)
    assert accuracies_of(tmp_path / "plain") == accuracies_of(tmp_path / "cached")
    # The adapter is like any other.
    run_tool("evaluate", "--run_dir", tmp_path / "cached")
    run_tool("evaluate", "--run_dir", tmp_path / "plain")


def test_the_draws_of_a_video_share_a_decode(tiny_set, run_tool, tmp_path, monkeypatch):
    opened, known = [], data.clips.open_counted

    def noting(file, *about):
        opened.append(Path(file).name)
        return known(file, *about)

    monkeypatch.setattr(data.clips, "open_counted", noting)
    options = [*tiny_set.options(train__batch_size=4, data__num_workers=0), *LINEAR]
    run_tool(
        "train", *options, "--cache.dir", tmp_path / "cache", "--cache.draws", "4",
        "--run_dir", tmp_path / "run",
    )  # fmt: skip
    assert filled_by(tmp_path / "run") == 4 * 12 + 5
    assert sum(name.startswith("train") for name in opened) == 12


def test_half_precision_files_are_half_as_large_and_stay_close(tiny_set, run_tool, tmp_path):
    options = [*tiny_set.options(), *RECIPES["adaptformer"], *COPIES, "--cache.draws", "4"]
    for dtype in ("fp32", "bf16"):
        cache = ("--cache.dir", tmp_path / f"cache_{dtype}", "--cache.dtype", dtype)
        run_tool("train", *options, *cache, "--run_dir", tmp_path / dtype)
    # bf16 keeps 8 bits of a feature: 2e-3 of it is lost on average.
    assert_alike(tmp_path / "fp32", tmp_path / "bf16", 5e-3)
    assert steps_of(tmp_path / "fp32") != steps_of(tmp_path / "bf16")
    whole, half = (rows_of(tmp_path / f"cache_{dtype}/train") for dtype in ("fp32", "bf16"))
    # 4 draws of 12 clips, 2 x 2 x 2 tokens of width 192; and a checksum.
    assert whole.nbytes == 4 * 12 * (8 * 192 * 4 + 8) and whole["tokens"].dtype == np.float32
    assert half.nbytes == 4 * 12 * (8 * 192 * 2 + 8)


@pytest.mark.slow
def test_two_processes_fill_and_train_as_one_does(tiny_set, tmp_path):
    """The same rows, those to train on computed in other batches; the same global batches."""
    losa = ("--method.name", "losa", "--model.head", "linear", "--cache.draws", "2")
    one, two, cache = tmp_path / "one", tmp_path / "two", tmp_path / "cache"
    command = ["train", *tiny_set.options(), *losa]
    launch(*command, "--cache.dir", cache / "one", "--run_dir", one)
    command += ["--train.batch_size", "2"]
    launch(*command, "--cache.dir", cache / "two", "--run_dir", two, processes=2)
    assert filled_by(two) == filled_by(one) == 2 * 12 + 5
    for split in ("train", "dev"):
        first, second = (rows_of(cache / run / split) for run in ("one", "two"))
        for name in first.dtype.names[1:]:
            np.testing.assert_allclose(first[name], second[name], rtol=0, atol=1e-5)
        assert marks_of(cache / "one" / split) == marks_of(cache / "two" / split)
        if split == "dev":
            assert first.tobytes() == second.tobytes()
    assert_alike(one, two, 1e-5)
    assert accuracies_of(one) == accuracies_of(two)


def test_fewer_draws_than_epochs_come_in_turns_which_is_said(tiny_set, run_tool, tmp_path, capsys):
    """With one draw, every epoch sees the clips that the first one sees without a cache."""
    options = [*tiny_set.options(train__base_lr=0.0), *RECIPES["attentive"]]
    run_tool("train", *options, "--run_dir", tmp_path / "plain")
    cache = ("--cache.dir", tmp_path / "cache")
    run_tool("train", *options, *cache, "--run_dir", tmp_path / "cached")
    assert "1 draw serves 2 epochs" in capsys.readouterr().out
    # At a rate of 0 the mean loss of an epoch is that of its 12 clips, whatever their order.
    plain, cached = (
        np.reshape(steps_of(tmp_path / run), (2, 3)).mean(1) for run in ("plain", "cached")
    )
    np.testing.assert_allclose(cached, [plain[0], plain[0]], rtol=0, atol=1e-6)
    assert abs(plain[1] - plain[0]) > 1e-6


def test_another_run_takes_up_the_features(tiny_set, run_tool, tmp_path):
    """Head, learning rate and everything else behind the prefix are free."""
    cache = (*LINEAR, "--cache.dir", tmp_path / "cache")
    run_tool("train", *tiny_set.options(), *cache, "--run_dir", tmp_path / "first")
    before = files_of(tmp_path / "cache")
    changes = {"model__head": "linear", "train__base_lr": 0.1, "train__epochs": 3}
    run_tool("train", *tiny_set.options(**changes), *cache, "--run_dir", tmp_path / "second")
    assert filled_by(tmp_path / "second") == 0
    assert files_of(tmp_path / "cache") == before


def test_an_interrupted_filling_goes_on_where_it_stopped(tiny_set, run_tool, tmp_path):
    """A video that breaks ends the first filling; what was there is not computed again."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    changes = {"data__root": root, "train__batch_size": 2, "data__train_list": root / "train.txt"}
    options = [*tiny_set.options(**changes), *LINEAR, "--cache.dir", tmp_path / "cache"]
    run_tool("train", *options, "--run_dir", tmp_path / "index_only")
    whole = np.array(rows_of(tmp_path / "cache" / "train")["pooled"])
    shutil.rmtree(tmp_path / "cache")

    broken = root / "train 7 [x]#.mp4"
    content, facts = broken.read_bytes(), broken.stat()
    broken.write_bytes(bytes(len(content)))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(Exception, match=r"train 7 \[x\]#\.mp4"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()
    assert marks_of(tmp_path / "cache" / "train") == [THERE] * 6 + [0] * 6

    broken.write_bytes(content)
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    # What is marked is taken as it is: other values there stay.
    rows = rows_of(tmp_path / "cache" / "train", "r+")
    rows["pooled"][0] += 1
    rows["check"][0] = xxhash.xxh3_64(rows["pooled"][0].tobytes()).intdigest()
    rows.flush()
    run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert filled_by(tmp_path / "run") == 6 + 5
    found = rows_of(tmp_path / "cache" / "train")["pooled"]
    np.testing.assert_array_equal(whole[0] + 1, found[0])
    np.testing.assert_array_equal(whole[1:], found[1:])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("hang", r"the decoder process did not finish within 2 s; .*data\.clip_timeout"),
        ("segfault", r"the decoder process died twice .*data\.quarantine"),
    ],
)
def test_a_video_that_hangs_or_kills_its_process_ends_the_filling(
    tiny_set, run_tool, tmp_path, monkeypatch, how, message
):
    faulty = misbehaving.faulty(data.train_loader, {7: how}, tmp_path / "log")
    monkeypatch.setattr(data.splits, "train_loader", faulty)
    changes = {"data__num_workers": 1, "data__clip_timeout": 2, "train__batch_size": 2}
    options = [*tiny_set.options(**changes), *LINEAR, "--cache.dir", tmp_path / "cache"]
    with pytest.raises(ReadError, match=rf"^train 7 \[x\]#\.mp4: {message}"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    # What a killed process had not sent yet is lost with it.
    assert not any(marks_of(tmp_path / "cache" / "train")[6:])


def test_a_video_that_cannot_be_read_is_wrong_in_validation(tiny_set, run_tool, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    (root / "dev 3 [x]#.mp4").write_bytes(b"not a video")
    changes = {"data__root": root, "data__dev_list": root / "dev.txt", "train__epochs": 1}
    options = [*tiny_set.options(**changes), *LINEAR]
    run_tool("train", *options, "--run_dir", tmp_path / "plain")
    run_tool("train", *options, "--cache.dir", tmp_path / "cache", "--run_dir", tmp_path / "cached")
    expected = [THERE, THERE, THERE, UNREADABLE, THERE]
    assert marks_of(tmp_path / "cache" / "dev") == expected
    assert accuracies_of(tmp_path / "plain") == accuracies_of(tmp_path / "cached")


def test_a_video_that_could_not_be_read_once_is_tried_again(tiny_set, run_tool, tmp_path):
    """E.g. since the disk was away for a while: the index knows it as a good one."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    lists = {f"data__{split}_list": root / f"{split}.txt" for split in ("train", "dev")}
    options = [*tiny_set.options(data__root=root, train__epochs=1, **lists), *LINEAR]
    run_tool("train", *options, "--run_dir", tmp_path / "plain")

    options += ["--cache.dir", tmp_path / "cache"]
    video = root / "dev 3 [x]#.mp4"
    content, facts = video.read_bytes(), video.stat()
    for bytes_now, marks_then, computed in (
        (bytes(len(content)), [THERE, THERE, THERE, UNREADABLE, THERE], 12 + 5),
        (content, [THERE] * 5, 1),
    ):
        video.write_bytes(bytes_now)
        os.utime(video, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        run = tmp_path / f"run_{computed}"
        run_tool("train", *options, "--run_dir", run)
        assert marks_of(tmp_path / "cache" / "dev") == marks_then
        assert filled_by(run) == computed
    assert accuracies_of(run) == accuracies_of(tmp_path / "plain")


def test_a_resumed_run_equals_one_that_was_left_alone(tiny_set, run_tool, tmp_path, monkeypatch):
    options = [*tiny_set.options(), *RECIPES["losa"], *COPIES, "--cache.draws", "3"]
    cache, moved = ("--cache.dir", tmp_path / "cache"), ("--cache.dir", tmp_path / "moved")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_tool("train", *options, *cache, "--run_dir", whole)

    with monkeypatch.context() as patched:
        patched.setattr(validation, "measure", stopping(validation.measure, at_call=2))
        with pytest.raises(KeyboardInterrupt):
            run_tool("train", *options, *cache, "--run_dir", stopped)
    assert len(accuracies_of(stopped)) == 1
    with pytest.raises(ValueError, match=r"cached was True, here it is False; set cache\.dir"):
        run_tool("train", *options, "--run_dir", stopped, "--resume")
    with pytest.raises(ValueError, match=r"cache\.draws: 3 -> 4"):
        run_tool("train", *options, *cache, "--cache.draws", 4, "--run_dir", stopped, "--resume")
    (tmp_path / "cache").rename(tmp_path / "moved")
    run_tool("train", *options, *moved, "--run_dir", stopped, "--resume")
    assert steps_of(stopped) == steps_of(whole)
    for name, tensor in tensors_of(whole).items():
        assert torch.equal(tensor, tensors_of(stopped)[name]), name


def stopping(function: Callable, at_call: int) -> Callable:
    """The function, until the user presses Ctrl-C."""
    calls = itertools.count(1)

    def call(*arguments: object) -> object:
        if next(calls) == at_call:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """For all of this process, and so for no longer than the write that is to fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_is_told_and_whole_rows_stay(tmp_path):
    """A limit on the length of files stands for a full disk."""
    store = Store(tmp_path / "cache", {}, 6, (Kept("pooled", (1000,), "fp32", "fp32"),))
    create(store)
    values = torch.arange(6000.0).view(6, 1000)
    refusal = pytest.raises(CacheError, match=r"cache\.dir: cannot write to .*; make room")
    with refusal, writing_rows(store) as writer:
        writer.write([0, 1], [values[:2]])
        writer.mark()
        with files_of_at_most(12_000):
            writer.write([2, 3], [values[2:4]])
            writer.mark()
    assert marks(store).tolist() == [THERE, THERE, 0, 0, 0, 0]
    assert torch.equal(Reader(store).rows([1, 0])[0], values[[1, 0]])


def test_of_two_runs_that_start_at_once_the_second_is_refused_other_features(tmp_path):
    """Both found no folder when they looked; a run with the same features may share it."""
    first, other = (
        Store(tmp_path / "cache", {"train.seed": seed}, 4, (Kept("pooled", (3,), "fp32", "fp32"),))
        for seed in (0, 1)
    )
    create(first)
    with writing_rows(first) as writer:
        writer.write([2], [torch.ones(1, 3)])
    create(first)
    assert marks(first).tolist() == [0, 0, THERE, 0]
    with pytest.raises(CacheError, match=r"train\.seed: 0 in the cache, 1 here"):
        create(other)


def test_what_a_disk_lost_is_not_marked_when_it_works_again(tmp_path, monkeypatch):
    """Linux reports a failed write once; the next fsync succeeds without those bytes."""
    store = Store(tmp_path / "cache", {}, 4, (Kept("pooled", (3,), "fp32", "fp32"),))
    create(store)
    failures = iter([OSError(5, "Input/output error")])

    def fsync(file: int) -> None:
        for error in failures:
            raise error

    refusal = pytest.raises(CacheError, match="Input/output error")
    with refusal, writing_rows(store) as writer:
        writer.write([0, 1], [torch.ones(2, 3)])
        monkeypatch.setattr(os, "fsync", fsync)
        writer.mark()
    assert marks(store).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("place", [0, 8, 19])  # of the record: its checksum, its values
def test_a_damaged_row_is_refused_and_then_missing(tmp_path, place):
    store = Store(tmp_path / "cache", {}, 3, (Kept("pooled", (3,), "fp32", "fp32"),))
    create(store)
    values = torch.randn(3, 3)
    with writing_rows(store) as writer:
        writer.write([0, 1, 2], [values])
    rows_of(store.folder, "r+").view(np.uint8).reshape(3, 8 + 12)[1, place] ^= 4
    assert torch.equal(Reader(store).rows([2, 0])[0], values[[2, 0]])
    with pytest.raises(CacheError, match=r"row 1 is damaged"):
        Reader(store).rows([0, 1, 2])
    assert marks(store).tolist() == [THERE, 0, THERE]
    with writing_rows(store) as writer:
        writer.write([1], [values[1:2]])
    assert torch.equal(Reader(store).rows([0, 1, 2])[0], values)


def test_a_damaged_row_whose_mark_cannot_be_removed_is_told(tmp_path):
    """A folder in the place of the marks stands for files that may only be read."""
    store = Store(tmp_path / "cache", {}, 3, (Kept("pooled", (3,), "fp32", "fp32"),))
    create(store)
    with writing_rows(store) as writer:
        writer.write([0, 1, 2], [torch.randn(3, 3)])
    rows_of(store.folder, "r+").view(np.uint8).reshape(3, 8 + 12)[1, 8] ^= 4
    (store.folder / "marks.npy").unlink()
    (store.folder / "marks.npy").mkdir()
    with pytest.raises(CacheError, match=r"row 1 is damaged .* make the folder writable"):
        Reader(store).rows([0, 1, 2])


@pytest.mark.parametrize("mark", [1, THERE ^ 8, 0x80])
def test_marks_that_are_none_are_refused(tmp_path, mark):
    store = Store(tmp_path / "cache", {}, 2, (Kept("pooled", (3,), "fp32", "fp32"),))
    create(store)
    open_memmap(store.folder / "marks.npy", "r+")[1] = mark
    with pytest.raises(CacheError, match=r"marks\.npy: damaged"):
        marks(store)


# --- what cannot work is said before anything is written ---------------------------------------


@pytest.fixture(scope="module")
def small_cache(tiny_set, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "cache"
    options = [*tiny_set.options(train__epochs=1), *LINEAR, "--cache.dir", folder]
    with pytest.MonkeyPatch.context() as patched:
        arguments = [*options, "--run_dir", folder.parent / "run"]
        patched.setattr(sys, "argv", ["tools/train.py", *map(str, arguments)])
        load_tool("train").main(ALONE)
    return folder


# Every field of `Augmentation`, with another value than the small cache was made with.
AUGMENTED = {
    "train_crop": "random_resized",
    "flip": "true",
    "rand_augment": "true",
    "random_erasing": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__seed": 1}, r"train\.seed: 0 in the cache, 1 here"),
        ({"cache__draws": 2}, r"cache\.draws: 1 in the cache, 2 here"),
        ({"cache__dtype": "bf16"}, r"cache\.dtype: 'fp32' in the cache, 'bf16' here"),
        ({"train__precision": "bf16"}, r"train\.precision: 'fp32' in the cache"),
        ({"model__weights": "demo"}, r"backbone: '\w+' in the cache, '\w+' here"),
        ({"model__position_grid": "[2,1,1]"}, r"model\.position_grid: None in the cache"),
        ({"model__head": "attentive"}, r"features: 'mean of the tokens' in the cache, 'all"),
        ({"method__name": "losa"}, r"features: .*'outputs of the last layer and of layers 1, 2"),
        ({"data__crop_size": 48}, r"data\.crop_size: 32 in the cache, 48 here"),
        ({"data__num_frames": 6}, r"data\.num_frames: 4 in the cache, 6 here"),
        ({"data__sampling": "videomae_dense"}, r"data\.sampling: .*; data\.stride: "),
        *(
            ({f"data__{field.name}": AUGMENTED[field.name]}, rf"data\.{field.name}: ")
            for field in fields(Augmentation)
        ),
        ({"data__repeated_augmentation": 2}, r"data\.repeated_augmentation: "),
        ({"data__normalization": "half"}, r"data\.normalization: "),
        ({"data__resize": 40}, r"data\.resize: None in the cache, 40 here"),
        ({"data__interpolation": "bicubic"}, r"data\.interpolation: "),
        ({"data__fit": "squash"}, r"data\.fit: "),
        ({"data__reader": "pyav"}, r"data\.reader: .*'pyav' here; frames"),
        ({"data__train_list": "test"}, r"file sizes: .*; frames: .*; videos: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_features_of_another_run_are_refused(
    tiny_set, run_tool, tmp_path, small_cache, changes, message
):
    if changes.get("data__train_list") == "test":
        changes = {"data__train_list": tiny_set.lists["test"], "data__test_list": None}
    before = files_of(small_cache)
    options = tiny_set.options(**{"method__name": "linear", "train__epochs": 1, **changes})
    with pytest.raises(ValueError, match=message) as refused:
        run_tool("train", *options, "--cache.dir", small_cache, "--run_dir", tmp_path / "run")
    assert f"{small_cache}/train holds features of another run" in str(refused.value)
    assert "give another cache.dir, or delete that folder" in str(refused.value)
    assert not (tmp_path / "run" / "last").exists()
    assert files_of(small_cache) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method__name": "full"}, r"cache\.dir: method\.name full trains patch_embed"),
        ({"method__name": "adaptformer"}, r"trains something in the first block"),
        ({"method__name": "linear", "train__mixup": 0.8}, r"cache\.dir: train\.mixup and"),
        ({"method__name": "linear", "train__cutmix": 1.0}, r"cache\.dir: train\.mixup and"),
        ({"method__name": "linear", "cache__draws": 0}, r"cache\.draws: expected 1 or more"),
        ({"method__name": "linear", "cache__dir": "run/inside"}, r"cache\.dir: .* lies in run_dir"),
        (
            {"method__name": "linear", "cache__dir": "cache/../run"},
            r"cache\.dir: .* lies in run_dir",
        ),
        # 17 clips x (192 floats and a checksum).
        ({"method__name": "linear", "cache__max_gb": 13e-6}, r"cache\.max_gb: .* take 13\.2 kB"),
        ({"method__name": "linear", "cache__draws": 10**12}, r"cache\.max_gb: .* take .* GB"),
        (
            {"method__name": "linear", "cache__draws": 10**12, "cache__max_gb": 1e12},
            r"cache\.dir: the features take .* GB more, and .* GB free",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_cached_is_refused(tiny_set, run_tool, tmp_path, changes, message):
    folder = tmp_path / changes.get("cache__dir", "cache")
    options = tiny_set.options(**{**changes, "cache__dir": folder})
    with pytest.raises(ValueError, match=message):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()
    assert not (tmp_path / "cache").exists()


def test_features_of_files_that_were_replaced_are_refused(
    tiny_set, run_tool, tmp_path, small_cache
):
    """The same frames of the same videos, but others' bytes: e.g. smaller copies of a data set."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    options = [*tiny_set.options(train__epochs=1, data__root=root), *LINEAR]
    options += ["--cache.dir", small_cache]
    run_tool("train", *options, "--run_dir", tmp_path / "copied")
    assert filled_by(tmp_path / "copied") == 0
    with (root / "train 7 [x]#.mp4").open("ab") as file:
        file.write(bytes(8))
    with pytest.raises(ValueError, match=r"run; file sizes: '\w+' in the cache, '\w+' here\. Use"):
        run_tool("train", *options, "--run_dir", tmp_path / "replaced")
    shutil.copy(tiny_set.root / "train 7 [x]#.mp4", root)
    with (root / "train 7 [x]#.mp4").open("r+b") as file:  # another video of the same numbers
        size = len(file.read())
        write_video(tmp_path / "other.mp4", grey_frames(15, 48, 64))
        other = (tmp_path / "other.mp4").read_bytes()
        assert len(other) < size
        file.seek(0)
        file.write(other.ljust(size, b"\0"))
    with pytest.raises(ValueError, match=r"run; frames: '\w+' in the cache, '\w+' here\. Use"):
        run_tool("train", *options, "--run_dir", tmp_path / "replaced")


def test_features_in_an_older_format_are_refused_with_what_mends_it(tmp_path):
    store = Store(tmp_path / "cache", {}, 2, (Kept("pooled", (3,), "fp32", "fp32"),))
    create(store)
    about = json.loads((store.folder / "key.json").read_text())
    (store.folder / "key.json").write_text(json.dumps({**about, "format": "vidadapt-cache-2"}))
    with pytest.raises(CacheError, match=r"'vidadapt-cache-2', another.* Delete .*cache"):
        create(store)


def test_a_file_that_is_not_whole_is_refused(tiny_set, run_tool, tmp_path, small_cache):
    folder = tmp_path / "cache"
    shutil.copytree(small_cache, folder)
    with (folder / "train" / "rows.npy").open("r+b") as file:
        file.truncate(100)
    options = [*tiny_set.options(train__epochs=1), *LINEAR, "--cache.dir", folder]
    with pytest.raises(ValueError, match=r"rows\.npy: is missing or not whole; delete"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
