"""A run or adapter in one object: predictions, features, evaluation, files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_adapter

import vidadapt
from vidadapt import data
from vidadapt.config import Config, ConfigError, DataConfig, EvalConfig, ModelConfig, TrainConfig
from vidadapt.serving import GivenVideo, Predictor
from vidadapt.video import ReadError


@pytest.fixture(scope="module")
def run(tiny_set, tmp_path_factory) -> Path:
    """A run's folder with an adapter that tells the classes apart somehow."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    cfg = Config(
        run_dir="",
        method={"name": "adaptformer", "bottleneck": 4},
        data=DataConfig(label_names=str(tiny_set.root / "labels.txt"), num_frames=4, crop_size=32),
        model=ModelConfig("vit_tiny", str(tiny_set.weights), head="attentive"),
        train=TrainConfig(precision="fp32"),
        eval=EvalConfig(num_clips=2, num_crops=3),
    )
    write_adapter(folder / "best", cfg, seed=1, spread=0.2, metrics={"dev_top1": 50.0})
    return folder


@pytest.fixture(scope="module")
def model(run) -> vidadapt.Model:
    return vidadapt.load(run)


def videos(tiny_set) -> list[Path]:
    return sorted(tiny_set.root.glob("test *.mp4"))


def clips_of(tiny_set, model: vidadapt.Model, count: int = 3) -> torch.Tensor:
    return data.centre_clips(videos(tiny_set)[:count], model.adapter.plan, "auto")


def test_runs_and_adapters_load_by_text_and_by_path(run, model):
    for source in (str(run), run / "best", str(run / "best")):
        assert vidadapt.load(source).adapter.folder == model.adapter.folder
    assert model.labels == ("red", "green", "blue")


def test_videos_are_predicted_as_the_command_predicts_them(tiny_set, run, model):
    listed = videos(tiny_set)
    predictor = Predictor({"": run / "best"})
    wanted = list(predictor([GivenVideo(str(path)) for path in listed]))
    found = model.predict(listed)
    assert [one.path for one in found] == [str(path) for path in listed]
    for ours, theirs in zip(found, wanted, strict=True):
        assert [one.name for one in ours.guesses] == [one.name for one in theirs.guesses[""]]
        shares = [one.probability for one in theirs.guesses[""]]
        assert [one.probability for one in ours.guesses] == pytest.approx(shares, abs=1e-5)
    again = model.predict([listed[1], str(listed[0]), listed[1]], num_workers=1)
    assert [one.path for one in again] == [str(listed[place]) for place in (1, 0, 1)]
    assert again[0].guesses == again[2].guesses == found[1].guesses
    [alone] = model.predict(str(listed[0]), top=1)
    assert alone.guesses == found[0].guesses[:1]
    assert (alone.label, alone.probability) == (alone.guesses[0].name, alone.guesses[0].probability)


def test_a_folder_or_list_stands_for_its_videos(tiny_set, model, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in videos(tiny_set)[:2]:
        shutil.copy(path, folder)
    (tmp_path / "list.txt").write_text("".join(f"some/{p.name} 0\n" for p in folder.iterdir()))
    of_folder = model.predict(folder, num_clips=1, num_crops=1)
    of_list = model.predict(tmp_path / "list.txt", num_clips=1, num_crops=1)
    assert len(of_folder) == 2
    assert {Path(one.path).name: one.guesses for one in of_folder} == {
        Path(one.path).name: one.guesses for one in of_list
    }


def test_a_video_that_cannot_be_read_has_its_error_and_no_label(tiny_set, model, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    good = videos(tiny_set)[0]
    found = model.predict([broken, good, tmp_path / "missing.mp4"], num_clips=1, num_crops=1)
    assert [bool(one.error) for one in found] == [True, False, True]
    assert found[1].guesses == model.predict(good, num_clips=1, num_crops=1)[0].guesses
    assert str(broken) not in found[0].error and "broken.mp4" in repr(found[0])
    with pytest.raises(ReadError, match=r"broken\.mp4"):
        found[0].label  # noqa: B018
    assert [bool(one.error) for one in model.predict(broken)] == [True]
    with pytest.raises(ReadError, match=r"broken\.mp4"):
        model.features([good, broken])


def test_clips_in_both_layouts_and_libraries_give_the_same_logits(tiny_set, model):
    """F46: they are normalised as in training."""
    clips = clips_of(tiny_set, model)
    wanted = model.module(data.normalize(clips, "imagenet"))
    last = clips.permute(0, 2, 3, 4, 1)
    read_only = last.numpy().copy()
    read_only.flags.writeable = False
    for given in (clips, clips.numpy(), last, last.numpy(), read_only, last.numpy()[::-1][::-1]):
        torch.testing.assert_close(model(given), wanted)
    said = model.predict(last, top=3)
    shares = wanted.softmax(1)
    for one, row in zip(said, shares, strict=True):
        assert [guess.label for guess in one.guesses] == row.argsort(descending=True).tolist()
        assert one.probability == pytest.approx(row.max().item(), abs=1e-6)
        assert one.path == one.error == ""


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 4, 32, 32, 3), np.float32),
        torch.zeros(1, 3, 4, 32, 32),
        np.zeros((4, 32, 32, 3), np.uint8),
        np.zeros((1, 5, 32, 32, 3), np.uint8),
        np.zeros((1, 4, 3, 32, 32), np.uint8),
        np.zeros((0, 4, 32, 32, 3), np.uint8),
        [np.zeros((4, 32, 32, 3), np.uint8)],
        np.array("a.mp4"),
        None,
        7,
    ],
    ids=lambda wrong: f"{type(wrong).__name__}{getattr(wrong, 'shape', '')}",
)
def test_other_clips_are_refused_in_one_line_with_both_shapes(model, wrong):
    for asked in (model, model.predict, model.features):
        with pytest.raises(ValueError) as caught:
            asked(wrong)
        said = str(caught.value)
        assert "(B, 4, 32, 32, 3)" in said and "(B, 3, 4, 32, 32)" in said and "\n" not in said
    with pytest.raises(ValueError, match="top"):
        model.predict(np.zeros((1, 4, 32, 32, 3), np.uint8), top=0)
    with pytest.raises(ValueError, match="one or more"):
        model.predict([])


def test_features_are_what_the_last_layer_classifies(tiny_set, model):
    clips = clips_of(tiny_set, model)
    found = model.features(clips)
    assert found.dtype == torch.float32 and len(found) == 3
    head = model.module.head.classifier
    torch.testing.assert_close(head(found), model(clips))
    torch.testing.assert_close(model.features(videos(tiny_set)[:3]), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prepared", [True, False])
def test_an_evaluation_gives_the_figures_of_the_command(
    tiny_set, run, model, run_tool, tmp_path, prepared
):
    words = ["--adapter", run / "best", "--data.root", tiny_set.root, "--data.num_workers", 0]
    words += ["--data.test_list", tiny_set.lists["test"], "--model.weights", tiny_set.weights]
    run_tool("evaluate", *words, "--out", tmp_path / "out")
    wanted = json.loads((tmp_path / "out" / "metrics.json").read_text())
    found = model.evaluate(
        tiny_set.lists["test"], root=tiny_set.root if prepared else None, num_workers=0
    )
    same = ("top1", "loss", "per_class", "num_videos", "views", "manifest", "unreadable")
    assert {key: found[key] for key in same} == {key: wanted[key] for key in same}


def test_a_list_of_other_classes_is_refused(tiny_set, model, tmp_path):
    other = tmp_path / "test.txt"
    other.write_text("a.mp4 3\n")
    with pytest.raises(ValueError, match=r"test\.txt"):
        model.evaluate(other)
    with pytest.raises(ValueError, match=r"prepared\.json"):
        model.evaluate(tmp_path)


def test_a_saved_adapter_is_the_same_and_replaces_nothing(tiny_set, model, tmp_path):
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "notes.txt").write_text("dear to me")
    with pytest.raises(ConfigError, match="mine"):
        model.save(kept)
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]
    folder = model.save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="backbone="):  # no run beside it names the weights
        vidadapt.load(folder)
    again = vidadapt.load(folder, tiny_set.weights)
    clips = clips_of(tiny_set, model)
    assert torch.equal(again(clips), model(clips))


def test_a_model_shows_itself_in_one_line_and_in_a_notebook_as_a_table(run, model, tmp_path):
    """F45."""
    for shown in (model, model.adapter):
        assert "\n" not in repr(shown) and len(repr(shown)) < 300
        assert "adaptformer" in repr(shown)
    assert "red, green, blue" in model._repr_html_()
    about = json.loads((run / "best" / "adapter.json").read_text())
    about["label_names"] = ["<script>alert(1)</script>", "b\u202e", "c"]
    other = tmp_path / "other"
    shutil.copytree(run / "best", other / "best")
    shutil.copy(run / "config.yaml", other)
    (other / "best" / "checksums.json").unlink()
    (other / "best" / "adapter.json").write_text(json.dumps(about))
    shown = vidadapt.load(other)._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "\u202e" not in shown


def test_a_source_that_cannot_be_loaded_is_named():
    with pytest.raises(ConfigError, match="nowhere"):
        vidadapt.load("nowhere")


FRESH = """
import sys
import vidadapt
assert "torch" not in sys.modules
assert set(vidadapt.__all__) <= set(dir(vidadapt)), dir(vidadapt)
assert vidadapt.__version__ and "torch" not in sys.modules
assert callable(vidadapt.runs.adapters.load_adapter)  # F44
for name in vidadapt.__all__:
    assert getattr(vidadapt, name) is not None
from vidadapt import METHODS, load
assert METHODS is vidadapt.methods.METHODS and load is vidadapt.serving.load
try:
    vidadapt.nothing_of_this_name
except AttributeError as error:
    assert "nothing_of_this_name" in str(error)
else:
    raise SystemExit("no error")
"""


def test_the_package_is_imported_without_torch_and_has_all_that_it_lists():
    told = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
