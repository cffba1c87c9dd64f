"""Features by command are those of the model, whole, resumable, and the same on any processes."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from conftest import ALONE, launch, load_tool, write_adapter
from safetensors.numpy import load_file
from videos import grey_frames, write_video

import vidadapt
from vidadapt import data
from vidadapt.config import Config, ConfigError, DataConfig, EvalConfig, ModelConfig, TrainConfig
from vidadapt.data import Sampling, eval_indices
from vidadapt.features import CacheError
from vidadapt.serving import AdapterBank
from vidadapt.video import ReadError, frame_times

# Kills itself once so many videos are computed (all but marked at once), or written.
KILLED = """
import os, signal, sys
import numpy as np
from vidadapt import cli
from vidadapt.features import store, views
store.SECONDS_BETWEEN_MARKS = 0.0
where, left = sys.argv.pop(1), [4]
def counted(of, name):
    original = getattr(of, name)
    def call(*given, **more):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **more)
    setattr(of, name, call)
counted(*{"computing": (views, "times_of"), "writing": (np, "savez")}[where])
cli.run("features", sys.argv[1:])
"""


@pytest.fixture(scope="module")
def adapters(tiny_set, tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name, head in (("adaptformer", "attentive"), ("losa", "linear"), ("vpt", "linear")):
        cfg = Config(
            run_dir="",
            method={"name": name, **({"form": "shallow"} if name == "vpt" else {})},
            data=DataConfig(
                label_names=str(tiny_set.root / "labels.txt"), num_frames=4, crop_size=32
            ),
            model=ModelConfig("vit_tiny", str(tiny_set.weights), head=head),
            train=TrainConfig(precision="fp32"),
            eval=EvalConfig(num_clips=2, num_crops=3),
        )
        made[name] = tmp_path_factory.mktemp("adapters") / name / "best"
        write_adapter(made[name], cfg, seed=1, spread=0.2)
    return made


@pytest.fixture
def features(monkeypatch):
    """Run the command in this process; returns its exit status, and raises its errors."""

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["vidadapt features", *map(str, words)])
        return load_tool("features").main(ALONE)

    return run


def backbone(tiny_set, **changes) -> list[str]:
    """Keys of the tiny backbone."""
    keys = {
        "model.backbone": "vit_tiny",
        "model.weights": tiny_set.weights,
        "data.sampling": "uniform8",
        "data.num_frames": 4,
        "data.crop_size": 32,
        "train.precision": "fp32",
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return [str(word) for key, value in keys.items() for word in (f"--{key}", value)]


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def outputs(folder: Path) -> dict[str, bytes]:
    """Content of every file but the index, which holds times of modification."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".index"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_backbone_gives_the_bits_of_a_bank_and_an_adapter_those_of_its_model(
    tiny_set, adapters, features, tmp_path
):
    folder = adapters["adaptformer"]
    plain = ("--adapter", folder, "--plain", "--pool", "tokens")
    assert features(tiny_set.lists["test"], *plain, "--out", tmp_path / "plain") == 0
    keys = (*backbone(tiny_set), "--pool", "tokens")
    assert features(tiny_set.lists["test"], *keys, "--out", tmp_path / "keys") == 0
    assert features(tiny_set.lists["test"], "--adapter", folder, "--out", tmp_path / "head") == 0
    bank, model = AdapterBank.for_adapter(folder), vidadapt.load(folder)
    videos = sorted(tiny_set.root.glob("test *.mp4"))
    wanted = model.features(videos, num_workers=0)
    for place, video in enumerate(videos):
        clip = data.centre_clips([video], model.adapter.plan, "auto")
        for run in ("plain", "keys"):
            with np.load(tmp_path / run / "features" / f"{video.name}.npz") as found:
                assert found["features"].dtype == np.float32
                np.testing.assert_array_equal(found["features"], bank.features(clip).numpy())
        with np.load(tmp_path / "head" / "features" / f"{video.name}.npz") as found:
            np.testing.assert_array_equal(found["features"][0], wanted[place].numpy())
    key = json.loads((tmp_path / "head" / "features.json").read_text())["key"]
    assert key["adapter"] is not None and key["pool"] == "head"
    of_plain = json.loads((tmp_path / "plain" / "features.json").read_text())["key"]
    assert of_plain["backbone"] == key["backbone"] and of_plain["adapter"] is None


def test_frames_and_times_of_every_view_are_written_in_files_and_tables(
    tiny_set, features, tmp_path
):
    views = ("--num_clips", 2, "--num_crops", 3)
    for form in ("npz", "safetensors"):
        given = (tiny_set.lists["dev"], *backbone(tiny_set), *views, "--format", form)
        assert features(*given, "--out", tmp_path / form) == 0
        assert not (tmp_path / form / "work").exists()
    table = load_file(tmp_path / "safetensors" / "features.safetensors")
    videos, clips = (lines_of(tmp_path / "npz" / f"{name}.csv") for name in ("videos", "clips"))
    assert [line["label"] for line in videos] == ["0", "1", "2", "0", "1"]
    assert len(clips) == len(table["features"]) == 5 * 6
    for name in ("videos.csv", "clips.csv"):
        both = [(tmp_path / form / name).read_bytes() for form in ("npz", "safetensors")]
        assert both[0] == both[1]
    for place, video in enumerate(videos):
        rows = table["video"] == place
        count = int(video["frames"])
        indices = eval_indices(Sampling("uniform", 4, 1, 2, 3), count, 2)
        with np.load(tmp_path / "npz" / "features" / f"{video['path']}.npz") as found:
            np.testing.assert_array_equal(found["features"], table["features"][rows])
            np.testing.assert_array_equal(found["frames"], indices.repeat(3, axis=0))
            for clip, crop, frames, times in zip(
                *(found[name] for name in ("clip", "crop", "frames", "times")), strict=True
            ):
                [line] = [
                    line
                    for line in clips
                    if (line["path"], line["clip"], line["crop"])
                    == (video["path"], str(clip), str(crop))
                ]
                assert line["frames"].split() == [str(frame) for frame in frames]
                told = frame_times(str(tiny_set.root / video["path"]), frames.tolist(), count)
                assert times.tolist() == told
                assert line["times"] == " ".join(f"{time:.6f}" for time in told)


def test_parquet_holds_the_rows_of_safetensors(tiny_set, features, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for form in ("safetensors", "parquet"):
        given = (tiny_set.lists["dev"], *backbone(tiny_set), "--num_clips", 2, "--knn")
        assert features(*given, "--format", form, "--out", tmp_path / form) == 0
    rows = load_file(tmp_path / "safetensors" / "features.safetensors")
    found = parquet.read_table(tmp_path / "parquet" / "features.parquet").to_pydict()
    np.testing.assert_array_equal(np.float32(found["features"]), rows["features"])
    for name in ("video", "clip", "crop"):
        assert found[name] == rows[name].tolist()
    assert found["path"] == [line["path"] for line in lines_of(tmp_path / "parquet" / "clips.csv")]
    about = [
        json.loads((tmp_path / form / "features.json").read_text())
        for form in ("safetensors", "parquet")
    ]
    assert about[0]["accuracy"] == about[1]["accuracy"]


def test_clips_of_a_backbone_alone_may_be_taken_by_time(tiny_set, features, tmp_path):
    write_video(tmp_path / "a.mp4", grey_frames(48))  # of 24 a second
    keys = backbone(tiny_set, data__sampling="videomae_dense", data__stride=1, data__sampling_fps=8)
    assert features(tmp_path / "a.mp4", *keys, "--out", tmp_path / "out") == 0
    with np.load(tmp_path / "out" / "features" / "a.mp4.npz") as found:
        assert np.diff(found["frames"]).tolist() == [[3, 3, 3]]
    with pytest.raises(ConfigError, match=r"data\.sampling_fps: "):
        keys = backbone(tiny_set, data__sampling="videomae_dense", data__stride=1)
        features(tmp_path / "a.mp4", *keys, "--out", tmp_path / "out")


@pytest.mark.parametrize("layer", [1, 4, 6])
def test_a_layer_is_what_its_block_gives(tiny_set, features, tmp_path, layer):
    video = tiny_set.root / "test 1 [x]#.mp4"
    for pool in ("tokens", "mean"):
        given = (*backbone(tiny_set), "--layer", layer, "--pool", pool)
        assert features(video, *given, "--out", tmp_path / pool) == 0
    plan = data.resolve(DataConfig(num_frames=4, crop_size=32), EvalConfig(), ["x"])
    model = AdapterBank(
        ModelConfig("vit_tiny", str(tiny_set.weights)), num_frames=4, crop_size=32
    )._plain
    with torch.no_grad():
        x = model.embed(data.normalize(data.centre_clips([video], plan, "auto"), "imagenet"))
        for block in model.blocks[:layer]:
            x = block(x)
    with np.load(tmp_path / "tokens" / "features" / f"{video.name}.npz") as found:
        np.testing.assert_array_equal(found["features"], x.numpy())
    with np.load(tmp_path / "mean" / "features" / f"{video.name}.npz") as found:
        np.testing.assert_array_equal(found["features"], x.mean(dim=1).numpy())


def test_prompts_are_no_part_of_a_mean(tiny_set, adapters, features, tmp_path):
    video = tiny_set.root / "test 0 [x]#.mp4"
    for pool in ("tokens", "mean"):
        given = ("--adapter", adapters["vpt"], "--layer", 3, "--pool", pool)
        features(video, *given, "--out", tmp_path / pool)
    with np.load(tmp_path / "tokens" / "features" / f"{video.name}.npz") as found:
        tokens = torch.from_numpy(found["features"])
    assert tokens.shape == (1, 1 + 8, 192)  # a prompt, and 2 x 2 x 2 tubelets
    with np.load(tmp_path / "mean" / "features" / f"{video.name}.npz") as found:
        np.testing.assert_array_equal(found["features"], tokens[:, 1:].mean(dim=1).numpy())


def test_what_an_adapter_does_not_have_is_refused(tiny_set, adapters, features, tmp_path):
    video, out = tiny_set.root / "test 0 [x]#.mp4", ("--out", tmp_path / "out")
    for words, message in (
        (("--adapter", adapters["losa"], "--layer", 3), "side network.*--plain"),
        (("--adapter", adapters["vpt"], "--layer", 7), "layers 1 to 6, not 7"),
        (("--adapter", adapters["vpt"], "--layer", 3, "--pool", "head"), "behind the last layer"),
        (("--adapter", adapters["vpt"], "--data.crop_size", 64), r"--data\.crop_size"),
        ((*backbone(tiny_set), "--pool", "head"), "an adapter's"),
        ((*backbone(tiny_set), "--model.head", "linear"), r"--model\.head"),
        (("--model.backbone", "vit_tiny"), r"--model\.weights"),
        ((*backbone(tiny_set), "--format", "parquet", "--pool", "tokens"), "parquet"),
        ((*backbone(tiny_set), "--knn"), "labels"),
    ):
        with pytest.raises(ValueError, match=message):
            features(video, *words, *out)
    taken = ("--adapter", adapters["losa"], "--plain", "--layer", 3)
    assert features(video, *taken, *out) == 0


def test_unreadable_videos_are_listed_and_the_others_come(tiny_set, features, tmp_path, capsys):
    videos = tmp_path / "videos"
    (videos / "deep" / "er").mkdir(parents=True)
    good = tiny_set.root / "test 0 [x]#.mp4"
    shutil.copy(good, videos / "deep" / "er" / "B.MP4")
    (videos / "a.mp4").write_bytes(good.read_bytes()[:200])
    given = (videos, *backbone(tiny_set), "--out", tmp_path / "out")
    assert features(*given) == 1
    assert "unreadable (1):\n  a.mp4: " in capsys.readouterr().err
    first, second = lines_of(tmp_path / "out" / "videos.csv")
    assert first["path"] == "a.mp4" and first["error"] and first["frames"] == "0"
    assert second["path"] == "deep/er/B.MP4" and not second["error"]
    assert {line["path"] for line in lines_of(tmp_path / "out" / "clips.csv")} == {"deep/er/B.MP4"}
    assert (tmp_path / "out" / "features" / "deep" / "er" / "B.MP4.npz").is_file()
    assert features(*given) == 1  # again
    with pytest.raises(ReadError, match=r"none of the 1 videos.*a\.mp4"):
        features(videos / "a.mp4", *backbone(tiny_set), "--out", tmp_path / "none")


def test_a_whole_folder_is_left_alone_and_other_settings_are_refused(tiny_set, features, tmp_path):
    out = tmp_path / "out"
    given = (tiny_set.lists["dev"], "--out", out)
    assert features(*given, *backbone(tiny_set)) == 0
    before = outputs(out)
    assert features(*given, *backbone(tiny_set)) == 0
    assert outputs(out) == before
    for words, message in (
        (backbone(tiny_set, data__crop_size=48), r"data\.crop_size: 32 there, 48 here"),
        (backbone(tiny_set, data__num_frames=6), r"data\.num_frames: 4 there, 6 here"),
        (backbone(tiny_set, model__weights="demo"), "backbone: "),
        ([*backbone(tiny_set), "--layer", 6], "layer: 'last' there, 6 here"),
        ([*backbone(tiny_set), "--pool", "tokens"], "pool: 'mean' there, 'tokens' here"),
        ([*backbone(tiny_set), "--num_crops", 3], "num_crops: 1 there, 3 here"),
        ([*backbone(tiny_set), "--format", "safetensors"], "format: 'npz' there"),
    ):
        with pytest.raises(ConfigError, match=message):
            features(*given, *words)
    with pytest.raises(ConfigError, match="videos: "):
        features(tiny_set.lists["test"], "--out", out, *backbone(tiny_set))
    kept = {name: content for name, content in outputs(out).items() if name != "failure.json"}
    assert kept == before
    (out / "features" / "dev 3 [x]#.mp4.npz").unlink()
    with pytest.raises(ConfigError, match=r"dev 3 \[x\]#\.mp4\.npz is missing"):
        features(*given, *backbone(tiny_set))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not empty"):
        features(tiny_set.lists["dev"], "--out", tmp_path / "mine", *backbone(tiny_set))


@pytest.mark.parametrize("changes", [{"key": "x"}, {"key": {}}, {"unreadable": 3}, {"features": 1}])
def test_a_damaged_record_is_named(tiny_set, features, tmp_path, changes):
    given = (tiny_set.lists["dev"], *backbone(tiny_set), "--out", tmp_path)
    features(*given)
    about = json.loads((tmp_path / "features.json").read_text())
    (tmp_path / "features.json").write_text(json.dumps(about | changes))
    with pytest.raises(ConfigError, match=r"features\.json is damaged"):
        features(*given)


def test_videos_whose_files_would_be_one_or_lie_elsewhere_are_refused(tiny_set, features, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_set.root / "test 0 [x]#.mp4", tmp_path / name / "a.mp4")
    out = (*backbone(tiny_set), "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"several videos .*a\.mp4"):
        features(tmp_path / "one", tmp_path / "two", *out)
    listed = tmp_path / "one" / "list.txt"
    listed.write_text("../two/a.mp4 0\n")
    with pytest.raises(ConfigError, match="outside of --out"):
        features(listed, "--allow_outside_root", *out)
    assert not list(tmp_path.rglob("*.npz"))


def test_the_accuracy_of_neighbours_and_of_a_probe_is_added(tiny_set, features, tmp_path, capsys):
    told = []
    for form in ("npz", "safetensors"):
        given = (tiny_set.lists["train"], *backbone(tiny_set), "--num_crops", 3)
        given = (*given, "--format", form, "--out", tmp_path / form)
        features(*given)
        assert "accuracy" not in json.loads((tmp_path / form / "features.json").read_text())
        features(*given, "--knn")
        told.append(json.loads((tmp_path / form / "features.json").read_text())["accuracy"])
    assert told[0] == told[1]
    assert told[0]["num_videos"] == 12 and told[0]["num_classes"] == 3
    assert "nearest neighbours" in capsys.readouterr().out
    values = load_file(tmp_path / "safetensors" / "features.safetensors")["features"]
    means = values.reshape(12, 3, -1).mean(axis=1)
    labels = np.arange(12) % 3
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    right = 0
    for row in range(12):
        order = [other for other in np.argsort(-(unit @ unit[row])) if other != row][:5]
        votes = np.bincount(labels[order], minlength=3)
        nearest = next(labels[one] for one in order if votes[labels[one]] == votes.max())
        right += nearest == labels[row]
    assert told[0]["knn_top1"] == pytest.approx(100 * right / 12)
    assert 0 <= told[0]["linear_top1"] <= 100


def test_a_damaged_file_is_named_where_accuracies_are_asked_for(tiny_set, features, tmp_path):
    files = {"npz": "features/dev 3 [x]#.mp4.npz", "safetensors": None}
    if importlib.util.find_spec("pyarrow"):
        files["parquet"] = None
    for form, name in files.items():
        given = (tiny_set.lists["dev"], *backbone(tiny_set), "--format", form)
        features(*given, "--out", tmp_path / form)
        damaged = tmp_path / form / (name or f"features.{form}")
        damaged.write_bytes(damaged.read_bytes()[:100])
        with pytest.raises(ConfigError, match=rf"{re.escape(damaged.name)} is damaged"):
            features(*given, "--out", tmp_path / form, "--knn")


def test_names_that_are_no_text_are_refused_before_the_work_and_folders_are_not(
    tiny_set, features, tmp_path
):
    folder = tmp_path / os.fsdecode(b"no \xff text")
    folder.mkdir()
    shutil.copy(tiny_set.root / "test 0 [x]#.mp4", folder / "a.mp4")
    shutil.copy(tiny_set.root / "test 0 [x]#.mp4", folder / os.fsdecode(b"b\xff.mp4"))
    given = (*backbone(tiny_set), "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match="not valid Unicode"):
        features(folder, *given)
    assert not (tmp_path / "out" / "work").exists()
    (folder / os.fsdecode(b"b\xff.mp4")).unlink()
    assert features(folder, *given) == 0
    about = json.loads((tmp_path / "out" / "features.json").read_text(encoding="utf-8"))
    assert about["given"] == [str(folder)]


@pytest.mark.slow
def test_three_processes_write_the_bytes_of_one(tiny_set, adapters, tmp_path):
    given = ("features", tiny_set.lists["test"], "--adapter", adapters["adaptformer"])
    given = (*given, "--num_clips", 2, "--num_crops", 3, "--num_workers", 0)
    launch(*given, "--out", tmp_path / "one")
    launch(*given, "--out", tmp_path / "three", processes=3)
    assert len(outputs(tmp_path / "one")) == 7 + 3
    assert outputs(tmp_path / "three") == outputs(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(("where", "left"), [("computing", 4), ("writing", 0)])
def test_a_killed_command_goes_on_to_the_same_bytes(tiny_set, tmp_path, where, left):
    given = (tiny_set.lists["test"], *backbone(tiny_set), "--num_workers", 0)
    launch("features", *given, "--out", tmp_path / "whole")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    ended = warm.run(script, where, *given, "--out", tmp_path / "killed")
    assert ended.returncode == -9, ended.stdout + ended.stderr
    assert not (tmp_path / "killed" / "features.json").exists()
    again = launch("features", *given, "--out", tmp_path / "killed")
    assert f"features: {left} videos in" in again.stdout
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")


def test_a_damaged_row_is_found_and_computed_again(tiny_set, features, tmp_path, monkeypatch):
    given = (tiny_set.lists["dev"], *backbone(tiny_set), "--out")
    assert features(*given, tmp_path / "whole") == 0
    out = tmp_path / "out"

    def refuse(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", refuse)
        with pytest.raises(OSError, match="No space left"):
            features(*given, out)
    rows = np.lib.format.open_memmap(out / "work" / "rows.npy", "r+")
    rows["features"][2, 0, 5] += 1
    rows.flush()
    with pytest.raises(CacheError, match="row 2 is damaged"):
        features(*given, out)
    assert features(*given, out) == 0
    assert outputs(out) == outputs(tmp_path / "whole")
