"""Predictions are the evaluation's, in every form, and nothing goes missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_tool, tiny_adapter, write_adapter
from PIL import Image

from vidadapt.apps.report import write_prediction_sheets
from vidadapt.apps.report.prediction_sheet import MARGIN, THUMB
from vidadapt.config import Config, DataConfig, ModelConfig
from vidadapt.evaluation import fuse, load_scores
from vidadapt.lists import VIDEO_ENDINGS, ListError, Prepared, write_prepared
from vidadapt.runs import load_adapter
from vidadapt.serving import AdapterBank, GivenVideo, Predictor, find_videos, names_of
from vidadapt.video import frame_times


@pytest.fixture(scope="module")
def folders(tiny_set, tmp_path_factory) -> dict[str, Path]:
    """Adapters of the tiny backbone; the third and the fourth are evaluated with other views."""
    root = tmp_path_factory.mktemp("adapters")
    made = {}
    for name, method, fusion, num_clips, num_crops in (
        ("probe", "linear", "softmax", 2, 3),
        ("side", "losa", "logits", 2, 3),
        ("inside", "adaptformer", "softmax", 1, 3),
        ("middle", "linear", "softmax", 2, 1),
    ):
        views = {"num_clips": num_clips, "num_crops": num_crops}
        cfg = tiny_adapter(tiny_set, method, fusion=fusion, **views)
        folder = root / name / "best"
        write_adapter(folder, cfg, seed=len(made))
        made[name] = folder
    return made


def predict(capsys, *arguments) -> tuple[int, str, str]:
    status = load_tool("predict").main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_an_adapter_alone_is_evaluated_and_predicts_the_same(
    tiny_set, folders, run_tool, capsys, tmp_path
):
    chosen = [word for name in folders for word in ("--adapter", folders[name])]
    arguments = [tiny_set.lists["test"], *chosen, "--top", 3, "--json", "--device", "cpu"]
    status, out, err = predict(capsys, *arguments)
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and len(lines) == 7
    for name, folder in folders.items():
        run_tool(
            "evaluate", "--adapter", folder, "--data.root", tiny_set.root,
            "--data.test_list", tiny_set.lists["test"], "--data.num_workers", 0,
            "--out", tmp_path / name,
        )  # fmt: skip
        found = json.loads((tmp_path / name / "metrics.json").read_text())
        scores, about = load_scores(tmp_path / name / "scores.npz")
        fused = torch.from_numpy(fuse(scores.logits, found["fusion"]))
        shares = fused.softmax(1) if found["fusion"] == "logits" else fused
        assert about["label_names"] == ["red", "green", "blue"]
        for line, row in zip(lines, shares, strict=True):
            said = line["predictions"][f"{name}/best"]
            assert said["views"] == found["views"]
            assert [guess["label"] for guess in said["top"]] == row.argsort(
                descending=True
            ).tolist()
            for guess in said["top"]:
                assert guess["name"] == about["label_names"][guess["label"]]
                assert guess["probability"] == pytest.approx(row[guess["label"]].item(), abs=1e-6)
        hits = round(found["top1"] / 100 * 7)
        assert f"{name}/best {hits} of 7" in err
    assert [line["given"] for line in lines] == [0, 1, 2, 0, 1, 2, 0]


def test_adapters_whose_clips_are_cut_alike_share_decoding_and_backbone(folders):
    chosen = Predictor(folders)
    assert [group.bank.names for group in chosen.groups] == [
        ("probe", "side"),
        ("inside",),
        ("middle",),
    ]
    assert len(Predictor(folders, num_clips=2, num_crops=1).groups) == 1


def test_a_bank_reads_out_as_the_adapter_does_with_an_attentive_head_of_any_depth(
    tiny_set, tmp_path
):
    cfg = Config(
        run_dir="",
        method={"name": "linear"},
        data=DataConfig(label_names=str(tiny_set.root / "labels.txt"), num_frames=4, crop_size=32),
        model=ModelConfig(
            backbone="vit_tiny",
            weights=str(tiny_set.weights),
            head="vjepa_attentive",
            head_depth=2,
            head_heads=3,
        ),
    )
    write_adapter(tmp_path / "best", cfg, seed=0)
    bank = AdapterBank.for_adapter(tmp_path / "best")
    bank.add("own", tmp_path / "best")
    model, _ = load_adapter(tmp_path / "best")
    clips = torch.randint(0, 256, (2, *model.clip_shape), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(bank.logits(clips, "own"), model(clips), atol=1e-5)


def test_unreadable_videos_are_listed_and_the_rest_comes(tiny_set, folders, capsys, tmp_path):
    videos = tmp_path / "videos"
    (videos / "deep" / "er").mkdir(parents=True)
    shutil.copy(tiny_set.root / "test 0 [x]#.mp4", videos / "deep" / "er" / "B.MP4")
    (videos / "a.mp4").write_bytes((videos / "deep" / "er" / "B.MP4").read_bytes()[:200])
    (videos / "notes.md").write_text("no video")
    status, out, err = predict(
        capsys, videos, tmp_path / "gone.mp4", "--adapter", folders["probe"].parent
    )
    assert status == 1
    assert "1 of 3 videos in" in out.splitlines()[-1]
    assert out.count("cannot be read") == 2
    assert f"{videos}/deep/er/B.MP4\n  probe/best (2 clips x 3 crops)\n" in out
    assert out.count(" %  ") == 3  # three classes, though five labels are asked for
    assert "unreadable (2):" in err
    assert "gone.mp4: No such file" in err
    status, out, _ = predict(capsys, videos, "--adapter", folders["probe"], "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert status == 1
    assert "Invalid data" in first["error"] and "predictions" not in first
    assert second["given"] is None and "error" not in second


def test_sheets_show_what_the_model_saw(tiny_set, folders, capsys, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"none")
    status, out, _ = predict(
        capsys, tiny_set.lists["dev"], broken, "--adapter", folders["probe"], "--adapter",
        folders["inside"], "--sheet", tmp_path / "out.png",
    )  # fmt: skip
    assert status == 1 and f"pictures: {tmp_path}/out.png\n" in out
    with Image.open(tmp_path / "out.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # The first video is red: so is the middle of its first frame.
    row = int(np.flatnonzero(pixels[:, MARGIN + THUMB // 2].max(axis=1) < 200)[0])
    red, green, blue = pixels[row + 20 : row + 60, MARGIN + 20 : MARGIN + 100].mean(axis=(0, 1))
    assert red > green + 60 and red > blue + 60
    found = list(Predictor(folders)(find_videos([str(tiny_set.lists["dev"])]), shown=True))
    assert found[0].shown.frames.shape == (4, 32, 32, 3)
    names = Path(tiny_set.root / "labels.txt").read_text().split()
    assert [one.given for one in found] == [names[one.video.label] for one in found]
    files = write_prediction_sheets(found, tmp_path / "many.png", rows_per_page=2)
    assert [file.name for file in files] == ["many.png", "many-2.png", "many-3.png"]


def test_frames_are_timed_by_the_file(tiny_set):
    path = str(tiny_set.root / "test 1 [x]#.mp4")
    assert frame_times(path, [0, 3, 12], 13) == pytest.approx([0, 3 / 12, 1.0])
    assert frame_times(path, [0, 6], 99) == pytest.approx([0, 0.5])  # by the rate
    assert frame_times("gone.mp4", [0], 1) is None


def test_a_prepared_list_names_the_videos_of_its_root(tiny_set, tmp_path):
    listed = tmp_path / "test.txt"
    listed.write_text("a.mp4 3\n")
    lists = {"test": listed.name}
    record = Prepared("custom", str(tiny_set.root), lists, None, {"test": "0"}, {})
    write_prepared(tmp_path, record)
    assert find_videos([str(listed)]) == [GivenVideo(str(tiny_set.root / "a.mp4"), 3)]
    moved = find_videos([str(listed)], root=str(tmp_path))
    assert moved == [GivenVideo(str(tmp_path / "a.mp4"), 3)]


def test_a_video_named_twice_keeps_its_label_and_two_labels_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    video, given = str(tmp_path / "a.mp4"), tmp_path / "list.txt"
    given.write_text("a.mp4 3\n")
    (tmp_path / "other.txt").write_text("a.mp4 4\n")
    for arguments in ([video, str(given)], [str(given), video], [str(given), str(given)]):
        assert find_videos(arguments) == [GivenVideo(video, 3)]
    with pytest.raises(ListError, match="label 4 and, before, 3"):
        find_videos([str(given), str(tmp_path / "other.txt")])
    given.write_text("a.mp4 1,2\na.mp4 1,5\n")
    with pytest.raises(ListError, match="label 1,5 and, before, 1,2"):
        find_videos([str(given)], multi_label=True)


def test_lists_and_folders_name_each_video_once(tiny_set, tmp_path):
    for name in ("b 7", "a.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("path label\nb 7\na.mp4 3\nmy clip.mp4\n\nx y.mp4,12\n")
    assert find_videos([str(tmp_path / "list.txt")]) == [
        GivenVideo(str(tmp_path / "b 7")),
        GivenVideo(str(tmp_path / "a.mp4"), 3),
        GivenVideo(str(tmp_path / "my clip.mp4")),
        GivenVideo(str(tmp_path / "x y.mp4"), 12),
    ]
    both = find_videos([str(tmp_path), str(tmp_path / "a.mp4"), "z"])
    assert [Path(video.path).name for video in both] == ["a.mp4", "c.mp4", "z"]
    rooted = find_videos([str(tmp_path / "list.txt")], root="/elsewhere")
    assert rooted[1] == GivenVideo("/elsewhere/a.mp4", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.doc").touch()
    with pytest.raises(ListError, match=r"no file in this folder ends in \.mp4"):
        find_videos([str(tmp_path / "empty")])
    with pytest.raises(ListError, match=r"cannot read .*none\.txt"):
        find_videos([str(tmp_path / "none.txt")])


def test_folders_are_looked_through_as_prepare_does(tmp_path):
    for ending in sorted(VIDEO_ENDINGS):
        (tmp_path / f"a.{ending.upper()}").touch()
    (tmp_path / "no video").touch()
    assert len(find_videos([str(tmp_path)])) == len(VIDEO_ENDINGS)


def test_what_a_folder_holds_beside_videos_is_passed_over_and_said(tmp_path, capsys):
    for name in ("a.mp4", "._a.mp4", ".DS_Store", "photo.jpg", ".trash/b.mp4", "deep/c.MOV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_videos([str(tmp_path)])
    assert [Path(video.path).name for video in found] == ["a.mp4", "c.MOV"]
    said = capsys.readouterr().err
    for name in ("._a.mp4", ".DS_Store", "photo.jpg", ".trash/b.mp4"):
        assert name in said
    assert [video.path for video in find_videos([str(tmp_path / "._a.mp4")])], "asked for by name"
    find_videos([str(tmp_path / "deep")])
    assert not capsys.readouterr().err


def test_a_list_of_one_column_may_have_a_header(tmp_path):
    (tmp_path / "a.mp4").touch()
    for header in ("path", "Video", "filename"):
        (tmp_path / "list.csv").write_text(f"{header}\na.mp4\nmissing.mp4\n")
        names = [Path(video.path).name for video in find_videos([str(tmp_path / "list.csv")])]
        assert names == ["a.mp4", "missing.mp4"]
    (tmp_path / "video").touch()
    (tmp_path / "list.csv").write_text("video\na.mp4\n")  # a file of that name
    assert len(find_videos([str(tmp_path / "list.csv")])) == 2


@pytest.mark.parametrize("word", ["²", "9" * 20, "9" * 5000])
def test_a_word_that_is_no_label_belongs_to_the_path(tmp_path, word):
    (tmp_path / "list.txt").write_text(f"a.mp4 {word}\nb.mp4 {'9' * 18}\n")
    first, second = find_videos([str(tmp_path / "list.txt")])
    assert first.name == f"a.mp4 {word}" and first.label is None
    assert second.name == "b.mp4" and second.label == int("9" * 18)


def test_a_list_finds_files_in_another_unicode_spelling(tmp_path, capsys):
    composed, apart = "caf\xe9", "cafe\u0301"
    (tmp_path / apart).mkdir()
    (tmp_path / apart / f"{apart}.mp4").touch()
    (tmp_path / "list.txt").write_text(f"{composed}/{composed}.mp4 1\n", encoding="utf-8")
    found = find_videos([str(tmp_path / "list.txt")])
    assert found == [GivenVideo(str(tmp_path / apart / f"{apart}.mp4"), 1)]
    assert r"cafe\u0301.mp4" in capsys.readouterr().err
    (tmp_path / apart / f"{composed}.mp4").touch()  # two fit: neither is taken
    (found,) = find_videos([str(tmp_path / "list.txt")])
    assert not Path(found.path).exists()


def test_names_tell_adapters_apart():
    folders = [Path("runs/a/best"), Path("other/a/best"), Path("mine/")]
    assert names_of(folders) == ["runs/a/best", "other/a/best", "mine"]
    assert names_of([Path("/best"), Path("/a/best")]) == ["/best", "a/best"]
    with pytest.raises(ValueError, match=r"--adapter: a/\.\./b is given twice"):
        names_of([Path("b"), Path("a/../b")])


def test_the_current_folder_is_named_as_from_outside(tmp_path, monkeypatch):
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "inner")
    assert names_of([Path(), Path("..")]) == ["inner", "mine"]
    with pytest.raises(ValueError, match=r"--adapter: .*inner is given twice"):
        names_of([Path(), tmp_path / "mine" / "inner"])


def test_labels_mean_nothing_to_adapters_of_different_classes(tiny_set, folders, capsys, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders["probe"], other)
    about = json.loads((other / "adapter.json").read_text())
    about["label_names"] = ["up", "down", "left"]
    (other / "adapter.json").write_text(json.dumps(about))
    (other / "checksums.json").unlink()  # as of an adapter that was changed by hand
    arguments = [tiny_set.lists["test"], "--adapter", folders["probe"], "--num_clips", 1]
    status, out, _ = predict(capsys, *arguments)
    assert status == 0 and "<- the list's" in out and "the first label is the list's" in out
    weights = ["--weights", tiny_set.weights]  # of the second, which is no part of a run
    status, out, err = predict(capsys, *arguments, "--adapter", other, *weights)
    assert status == 0 and "the list" not in out and "labels of the list are left out" in err


def test_an_evaluation_of_a_runs_folder_stays_in_it(tiny_set, folders, run_tool, tmp_path):
    run = tmp_path / "runs" / "mine"
    shutil.copytree(folders["inside"].parent, run)
    for folder in (run, run / "best"):
        run_tool(
            "evaluate", "--adapter", folder, "--data.root", tiny_set.root,
            "--data.test_list", tiny_set.lists["test"], "--data.num_workers", 0,
        )  # fmt: skip
        shutil.rmtree(run / "eval_test_best_1x3")
    assert [path.name for path in run.parent.iterdir()] == ["mine"]


def test_what_cannot_be_meant_is_refused(tiny_set, folders, run_tool, capsys, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["probe"], copy)
    about = json.loads((copy / "adapter.json").read_text())
    about["model"]["weights"] = "gone/backbone.pth"
    (copy / "adapter.json").write_text(json.dumps(about))
    (copy / "checksums.json").unlink()
    with pytest.raises(ValueError, match=r"adapter\.json.*give .*--weights gone/backbone\.pth"):
        predict(capsys, tiny_set.root, "--adapter", copy)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predict(capsys, tiny_set.root, "--adapter", copy, "--weights", tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="holds no best or last checkpoint"):
        predict(capsys, tiny_set.root, "--adapter", tmp_path)
    with pytest.raises(ValueError, match="--sheet: the folder of"):
        predict(capsys, tiny_set.root, "--adapter", copy, "--sheet", tmp_path / "no" / "x.png")
    with pytest.raises(ValueError, match=r"--sheet: expected a file that ends in \.png"):
        predict(capsys, tiny_set.root, "--adapter", copy, "--sheet", tmp_path)
    with pytest.raises(SystemExit):
        predict(capsys, tiny_set.root, "--adapter", copy, "--device", "gpu")
    assert "error: --device: gpu cannot be used" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--data\.num_frames: has no effect with --adapter"):
        run_tool("evaluate", "--adapter", copy, "--data.num_frames", 8)
    with pytest.raises(ValueError, match=r"give .*--model\.weights gone/backbone\.pth"):
        run_tool("evaluate", "--adapter", copy)
    with pytest.raises(ValueError, match="give one of --run_dir FOLDER, --adapter FOLDER and"):
        run_tool("evaluate")
    status, out, _ = predict(
        capsys, tiny_set.root / "test 1 [x]#.mp4", "--adapter", copy, "--weights",
        tiny_set.weights, "--num_clips", 1, "--num_crops", 1, "--top", 1,
    )  # fmt: skip
    assert status == 0 and "copy (1 clips x 1 crops)" in out


def test_help_shows_what_the_tools_are_about(capsys, run_tool):
    with pytest.raises(SystemExit):
        run_tool("evaluate", "--help")
    said = capsys.readouterr().out
    shown = [said.index(f"\n  --{key}") for key in ("adapter", "eval.fusion", "data.root")]
    assert shown == sorted(shown) and "--model.weights" in said
    assert not any(key in said for key in ("train.epochs", "train_list", "method.", "drop_path"))
    with pytest.raises(SystemExit):
        load_tool("predict").main(["--help"])
    assert "a run's folder (its" in " ".join(capsys.readouterr().out.split())


def test_the_limit_of_counting_is_an_option(tiny_set, folders, capsys):
    video = next(tiny_set.root.glob("test*.mp4"))
    chosen = (video, "--adapter", folders["probe"], "--device", "cpu")
    status, _, said = predict(capsys, *chosen, "--time-limit", "0.001")
    assert status == 1
    assert "--time_limit" in said
    assert predict(capsys, *chosen, "--time-limit", "inf")[0] == 0
