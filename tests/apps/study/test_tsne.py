"""The picture of features shows what the head is given, of the same videos for every run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import ALONE, TinySet, load_tool
from PIL import Image

from vidadapt.apps.study import embedding
from vidadapt.apps.study.embedding_plot import Panel, drawn
from vidadapt.data.sampling import eval_indices
from vidadapt.data.transforms import crop_corners, eval_frames, normalize
from vidadapt.lists import read_list
from vidadapt.serving.trained import asked, find, load

pytestmark = pytest.mark.slow  # whole commands

pytest.importorskip("sklearn", reason="scikit-learn is in the extra `analysis`")

RUNS = {
    "probe": {"method__name": "linear", "model__head": "linear"},
    "tuned": {"method__name": "adaptformer", "model__head": "batchnorm_linear"},
    "queried": {"method__name": "linear", "model__head": "attentive"},
}


@pytest.fixture(scope="module")
def trained(tiny_set: TinySet, tmp_path_factory) -> dict[str, Path]:
    """A run for each kind of head; `probe` has been evaluated with 2 x 3 and with 1 x 1 views."""
    folder = tmp_path_factory.mktemp("runs")
    made = {name: folder / name for name in RUNS}
    with pytest.MonkeyPatch.context() as patch:
        for name, changes in RUNS.items():
            words = ["--run_dir", str(made[name]), *tiny_set.options(train__epochs=1, **changes)]
            patch.setattr(sys, "argv", ["tools/train.py", *words])
            load_tool("train").main(ALONE)
        for clips, crops in (("2", "3"), ("1", "1")):
            views = ["--eval.num_clips", clips, "--eval.num_crops", crops]
            patch.setattr(sys, "argv", ["evaluate", "--run_dir", str(made["probe"]), *views])
            load_tool("evaluate").main(ALONE)
    return made


def frames_of(path: Path) -> np.ndarray:
    """All frames of a file, one after the other."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize("name", RUNS)
def test_features_are_what_the_last_layer_is_given(name, trained, tiny_set, run_tool, tmp_path):
    run_tool("tsne", "--run_dir", trained[name], "--out", tmp_path)
    found = np.load(tmp_path / f"features_{name}.npz")
    samples = read_list(tiny_set.lists["test"], tiny_set.root, 3)
    order = sorted(samples, key=lambda sample: sample.label)  # stable: by class, then as listed
    assert found["paths"].tolist() == [sample.path for sample in order]
    assert found["labels"].tolist() == [sample.label for sample in order]
    cfg, options, _ = asked(["--run_dir", str(trained[name])])
    assert cfg is not None
    loaded = load(find(cfg, options, None), ALONE)
    model, sampling = loaded.model, loaded.trained.plan.sampling
    last = {"probe": "head", "tuned": "head.0", "queried": "head.classifier"}[name]
    seen: list[torch.Tensor] = []
    model.get_submodule(last).register_forward_hook(lambda m, given, out: seen.append(given[0]))
    for sample in order:
        frames = frames_of(tiny_set.root / sample.path)
        [indices] = eval_indices(sampling, len(frames), 1)
        resized = eval_frames(frames[indices], 32)
        [(top, left)] = crop_corners(*resized.shape[1:3], 1)
        clip = resized[:, top : top + 32, left : left + 32].permute(3, 0, 1, 2)
        with torch.no_grad():
            model(normalize(clip[None], "imagenet"))
    assert found["features"].shape == (7, 192)
    np.testing.assert_allclose(found["features"], torch.cat(seen).numpy(), atol=1e-5)


def test_a_picture_has_one_panel_a_run_and_says_what_it_is_of(
    trained, run_tool, tmp_path, monkeypatch
):
    shown: list[list[Panel]] = []

    def watched(panels, *rest):
        shown.append(list(panels))
        return drawn(panels, *rest)

    monkeypatch.setattr("vidadapt.apps.study.embedding_plot.drawn", watched)
    run_tool("tsne", "--run_dir", *trained.values(), "--out", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "tsne.json").read_text())
    probe, tuned, queried = said["runs"]
    evaluated = json.loads((trained["probe"] / "eval_test_best_2x3" / "metrics.json").read_text())
    assert (probe["top1"], probe["views"]) == (evaluated["top1"], "2 clips x 3 crops")
    alone = json.loads((trained["probe"] / "eval_test_best_1x1" / "metrics.json").read_text())
    assert probe["top1_of_these_views"] == pytest.approx(alone["top1"])
    assert tuned["top1"] is None
    for facts, folder in zip(said["runs"], trained.values(), strict=True):
        summary = json.loads((folder / "summary.json").read_text())
        assert (facts["trainable"], facts["total"]) == (summary["trainable"], summary["total"])
        assert facts["num_videos"] == 7
    panels = shown[0]
    assert [panel.title for panel in panels] == ["linear", "adaptformer", "linear"]
    # Two runs have one method, and not all have been evaluated.
    for panel, facts in zip(panels, said["runs"], strict=True):
        assert panel.caption[0] == facts["run"]
        assert panel.caption[1].startswith(f"top-1 {facts['top1_of_these_views']:.1f} % (centre")
    assert f"{queried['trainable']:,} trainable parameters" in panels[2].caption[3]
    run_tool("tsne", "--run_dir", trained["probe"], "--out", tmp_path / "alone")
    [[alone_panel]] = shown[1:]
    share = f"top-1 {evaluated['top1']:.1f} % (whole list, 2 clips x 3 crops)"
    assert alone_panel.caption[0] == share
    figure = drawn(panels, [(0, "red"), (1, "green"), (2, "blue")], "note")
    assert len(figure.axes) == 3
    with Image.open(tmp_path / "out" / "tsne.png") as picture:
        assert picture.width > 3 * 4 * 150 and picture.info["dpi"][0] == pytest.approx(150, abs=1)
    assert "<svg" in (tmp_path / "out" / "tsne.svg").read_text()


def test_the_same_seed_gives_the_same_files(trained, run_tool, tmp_path):
    places, pictures = [], []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        run_tool("tsne", "--run_dir", trained["tuned"], "--out", out, "--videos", 6, "--seed", seed)
        found = np.load(out / "features_tuned.npz")
        assert np.bincount(found["labels"]).tolist() == [2, 2, 2]
        places.append((found["paths"].tolist(), found["places"].tolist()))
        pictures.append((out / "tsne.svg").read_bytes())
    assert places[0] == places[1] and pictures[0] == pictures[1]
    assert places[0] != places[2]


def test_an_unreadable_video_is_listed_and_left_out_of_every_panel(
    trained, tiny_set, run_tool, tmp_path, capsys
):
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    broken = "test 2 [x]#.mp4"
    (root / broken).write_bytes((root / broken).read_bytes()[:300])
    folders = trained["probe"], trained["tuned"]
    elsewhere = ["--data.root", root, "--data.test_list", root / "test.txt"]
    run_tool("tsne", "--run_dir", *folders, "--out", tmp_path / "out", *elsewhere)
    said = json.loads((tmp_path / "out" / "tsne.json").read_text())
    assert [entry["path"] for entry in said["unreadable"]] == [broken]
    assert said["num_videos"] == 6
    for name in ("probe", "tuned"):
        found = np.load(tmp_path / "out" / f"features_{name}.npz")
        assert len(found["features"]) == 6 and broken not in found["paths"]
    printed = capsys.readouterr().out
    assert "unreadable, left out (1)" in printed and "1 unreadable left out" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "5"], r"t-SNE needs 4 readable videos or more, not 3"),
        (["--classes", "6"], r"--classes: the list has 3 classes, not 6"),
        (["--classes", "gren", "red"], r"--classes: 'gren' is unknown; did you mean green"),
        (["--classes", "0"], r"--classes: a picture shows 1 to 20 classes, not 0"),
        (["--perplexity", "7"], r"--perplexity: .*below that of the videos \(7\), got 7"),
        (["--perplexity", "0"], r"--perplexity: .*got 0"),
        (["--classes", "1"], r"t-SNE needs 4 readable videos or more, not 3"),
        (["--data.rot", "x"], r"data\.rot"),
        (["--split", "dev", "--data.dev_list", "null"], r"data\.dev_list: is not set"),
    ],
)
def test_what_cannot_be_drawn_is_refused(trained, run_tool, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_tool("tsne", "--run_dir", trained["probe"], "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out" / "tsne.json").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"accuracy": 1}'])
def test_a_file_that_is_no_evaluation_is_named_before_any_model_runs(
    trained, run_tool, tmp_path, monkeypatch, text
):
    run = tmp_path / "run"
    shutil.copytree(trained["probe"], run)
    (run / "logs").mkdir()
    (run / "logs" / "metrics.json").write_text(text)
    monkeypatch.setattr(embedding, "features_of", None)
    with pytest.raises(ValueError, match=r"logs/metrics\.json: is no result of vidadapt evaluate"):
        run_tool("tsne", "--run_dir", run, "--out", tmp_path / "out")


def test_runs_with_other_lists_or_classes_are_refused(trained, tiny_set, run_tool, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained["probe"], other)
    lines = tiny_set.lists["test"].read_text().splitlines()[:-1]
    (tmp_path / "short.txt").write_text("\n".join(lines) + "\n")
    text = (other / "config.yaml").read_text()
    changed = text.replace(str(tiny_set.lists["test"]), str(tmp_path / "short.txt"))
    assert changed != text
    (other / "config.yaml").write_text(changed)
    words = ["--run_dir", trained["tuned"], other, "--out", tmp_path / "out"]
    with pytest.raises(ValueError, match=r"tuned and other .*\(7 videos\).*\(6 videos\)"):
        run_tool("tsne", *words)
    run_tool("tsne", *words, "--data.test_list", tiny_set.lists["test"])
    with pytest.raises(ValueError, match=r"--run_dir: .*probe is given twice"):
        run_tool("tsne", "--run_dir", trained["probe"], trained["probe"], "--out", tmp_path)


def test_nearest_neighbours_vote_as_in_a_slow_loop(monkeypatch):
    monkeypatch.setattr(embedding, "ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    values = (rng.normal(size=(60, 5)) + np.eye(4, 5)[labels]).astype(np.float32)
    for k in (1, 2, 5, 100):
        hits = 0
        for i in range(60):
            near = []
            for j in range(60):
                if j != i:
                    a, b = values[i].astype(float), values[j].astype(float)
                    near.append((-a @ b / np.sqrt((a @ a) * (b @ b)), j))
            voters = [labels[j] for _, j in sorted(near)[:k]]
            most = max(voters.count(label) for label in voters)
            hits += next(v for v in voters if voters.count(v) == most) == labels[i]
        assert embedding.knn_top1(values, labels, k) == pytest.approx(100 * hits / 60)
    assert 30 < embedding.knn_top1(values, labels) < 90


def test_features_that_all_point_the_same_way_are_in_one_place():
    equal = np.full((12, 8), 0.3, np.float32)
    for values in (equal, equal * 2 ** np.arange(12, dtype=np.float32)[:, None], 0 * equal):
        places = embedding.coordinates(values, 3.0, 0)
        assert places.shape == (12, 2) and (places == 0).all()


def test_runs_of_a_repeated_option_all_count():
    known = load_tool("tsne").parse(["--run_dir", "a", "b", "--run_dir", "c", "--out", "out"])
    assert known.run_dir == ["a", "b", "c"]


def test_without_scikit_learn_the_extra_is_named(trained, run_tool, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r"pip install 'vidadapt\[analysis\]'"):
        run_tool("tsne", "--run_dir", trained["probe"], "--out", tmp_path)
