"""Multi-view evaluation: exact under any number of processes, honest about unreadable videos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import launch
from torchmetrics.functional.classification import multiclass_accuracy

from vidadapt import models
from vidadapt.distributed import World
from vidadapt.evaluation import (
    METRICS,
    Scores,
    fuse,
    label_ranks,
    load_scores,
    measure,
    save_scores,
    score_views,
)
from vidadapt.evaluation import views as evaluate
from vidadapt.lists import write_list

VIEWS = ["--eval.num_clips", "2", "--eval.num_crops", "3"]


def video_item(index: int, starts: list[int], lefts: list[int]) -> dict[str, Any]:
    """An item of `EvalViews` of 10 frames of 32x40, with clips of 4 frames, no view left out."""
    frames = torch.randint(
        0, 256, (10, 32, 40, 3), generator=torch.Generator().manual_seed(index), dtype=torch.uint8
    )
    return {
        "frames": frames,
        "clips": torch.tensor(starts)[:, None] + torch.arange(4),
        "corners": torch.tensor([[0, left] for left in lefts]),
        "view_of": torch.arange(len(starts) * len(lefts)),
        "label": 0,
        "index": index,
        "error": "",
    }


@pytest.mark.parametrize("views_per_forward", [1, 2, 4, 100])
def test_views_that_coincide_score_as_if_each_were_computed(monkeypatch, views_per_forward):
    """3 clips x 2 crops: all different, clips that coincide, crops that do, and both."""
    monkeypatch.setattr(evaluate, "VIDEOS_PER_COPY", 2)
    whole = [
        video_item(0, [0, 3, 6], [0, 8]),
        video_item(1, [0, 0, 5], [0, 8]),
        video_item(2, [0, 1, 2], [4, 4]),
        video_item(3, [2, 2, 2], [4, 4]),
    ]
    once = [
        whole[0],
        video_item(1, [0, 5], [0, 8]) | {"view_of": torch.tensor([0, 1, 0, 1, 2, 3])},
        video_item(2, [0, 1, 2], [4]) | {"view_of": torch.tensor([0, 0, 1, 1, 2, 2])},
        video_item(3, [2], [4]) | {"view_of": torch.zeros(6, dtype=torch.int64)},
    ]
    broken = dict.fromkeys(("frames", "clips", "corners", "view_of"))
    unreadable = {**broken, "label": 0, "index": 4, "error": "cut short"}
    torch.manual_seed(0)
    model, _ = models.build("vit_tiny", num_frames=4, crop_size=32, num_classes=7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def scored(items: list[dict[str, Any]]) -> Scores:
        return score_views(
            model, [*items, unreadable], paths=list("abcde"), labels=[0] * 5, num_classes=7,
            num_clips=3, num_crops=2, normalization="half", views_per_forward=views_per_forward,
            precision="fp32", world=World(0, 1, torch.device("cpu")), shown=False,
        )  # fmt: skip

    fast, slow = scored(once), scored(whole)
    assert fast.errors == {"e": "cut short"} and np.isnan(fast.logits[4]).all()
    assert np.abs(fast.logits[:4] - slow.logits[:4]).max() < 1e-5
    if views_per_forward == 1:
        assert np.array_equal(fast.logits[:4], slow.logits[:4])
    for video, item in enumerate(whole):
        for view in range(6):
            times, left = item["clips"][view // 2], int(item["corners"][view % 2, 1])
            pixels = item["frames"][times, :, left : left + 32].permute(3, 0, 1, 2).double()
            with torch.no_grad():
                alone = model(((pixels / 255 - 0.5) / 0.5).float()[None])[0].numpy()
            assert np.abs(fast.logits[video, view] - alone).max() < 1e-4


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    launch("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    return run


def read_metrics(folder: Path) -> dict:
    found = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in found.items() if not key.startswith("seconds")}


def test_an_unreadable_video_is_listed_and_counts_as_wrong(trained, tiny_set, run_tool, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    run_tool("evaluate", "--run_dir", trained, *VIEWS, "--out", tmp_path / "before")
    before, _ = load_scores(tmp_path / "before" / "scores.npz")
    (root / "test 2 [x]#.mp4").write_bytes((root / "test 2 [x]#.mp4").read_bytes()[:300])
    arguments = ["--data.root", root, "--data.test_list", root / "test.txt"]
    run_tool("evaluate", "--run_dir", trained, *VIEWS, *arguments, "--out", tmp_path / "after")
    found = read_metrics(tmp_path / "after")
    hits = fuse(before.logits, "softmax").argmax(1) == before.labels
    hits[2] = False
    assert found["num_videos"] == 7
    assert found["top1"] == pytest.approx(100 * hits.mean())
    assert [entry["path"] for entry in found["unreadable"]] == ["test 2 [x]#.mp4"]
    again, _ = load_scores(tmp_path / "after" / "scores.npz")
    assert measure(again, "softmax")["top1"] == found["top1"]


def test_when_no_video_can_be_read_that_is_an_error(trained, tiny_set, run_tool, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    for path in root.glob("test*.mp4"):
        path.write_bytes(b"")
    arguments = ["--data.root", root, "--data.test_list", root / "test.txt"]
    with pytest.raises(Exception, match=r"no video can be read|none of the 7"):
        run_tool("evaluate", "--run_dir", trained, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_scores_give_the_metrics_again_with_any_fusion(trained, run_tool, tmp_path):
    run_tool("evaluate", "--run_dir", trained, *VIEWS, "--out", tmp_path / "direct",
             "--eval.fusion", "logits")  # fmt: skip
    run_tool(
        "evaluate", "--from-scores", tmp_path / "direct" / "scores.npz",
        "--eval.fusion", "logits", "--out", tmp_path / "again",
    )  # fmt: skip
    direct, again = read_metrics(tmp_path / "direct"), read_metrics(tmp_path / "again")
    again.pop("from_scores")
    direct.pop("warnings")
    assert again == direct
    assert again["fusion"] == "logits"


def test_fusions_are_the_means_of_what_they_are_called_after():
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32) * 20
    for video in range(3):
        probabilities = torch.tensor(logits[video], dtype=torch.float64).softmax(1).mean(0)
        np.testing.assert_allclose(fuse(logits, "softmax")[video], probabilities, rtol=1e-12)
        mean = logits[video].astype(np.float64).sum(0) / 4
        np.testing.assert_allclose(fuse(logits, "logits")[video], mean, rtol=1e-12)


def one_view(logits: np.ndarray, labels: np.ndarray, unreadable: Sequence[int] = ()) -> Scores:
    """Scores of one view of each video, (N, K)."""
    logits = logits[:, None].astype(np.float32)
    logits[list(unreadable)] = np.nan
    paths = [str(number) for number in range(len(labels))]
    errors = {paths[number]: "cut short" for number in unreadable}
    return Scores(paths, labels, np.zeros(1, int), np.zeros(1, int), logits, errors)


def test_accuracies_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 9)), rng.integers(0, 8, 200)  # class 8 never occurs
    found = measure(one_view(scores, labels), "logits")
    tensors = torch.tensor(scores), torch.tensor(labels)
    for name, top_k in (("top1", 1), ("top5", 5)):
        expected = multiclass_accuracy(*tensors, num_classes=9, top_k=top_k, average="micro")
        assert found[name] == pytest.approx(100 * expected.item(), abs=1e-4)
    recalls = multiclass_accuracy(*tensors, num_classes=9, average="none")[:8]
    assert found["mean_class_accuracy"] == pytest.approx(100 * recalls.mean().item(), abs=1e-4)
    assert found["per_class"][8]["top1"] is None


def test_a_tie_goes_to_the_lower_class():
    assert label_ranks(np.zeros((3, 4)), np.array([0, 1, 3])).tolist() == [0, 1, 3]


def test_a_scores_file_with_a_missing_view_is_refused(tmp_path):
    scores = Scores(["a", "b"], np.array([0, 1]), np.array([0, 0]), np.array([0, 1]),
                    np.zeros((2, 2, 3), np.float32), {})  # fmt: skip
    save_scores(tmp_path / "scores.npz", scores, {})
    with np.load(tmp_path / "scores.npz") as file:
        table = dict(file)
    for key in ("id", "clip", "crop", "logits", "label"):
        table[key] = table[key][:-1]
    np.savez(tmp_path / "short.npz", **table)
    with pytest.raises(ValueError, match="some videos lack views"):
        load_scores(tmp_path / "short.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="not a scores file"):
        load_scores(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method.bottleneck", "8"], r"; method\.bottleneck: 64 in the file, 8 asked for$"),
        (["--model.backbone", "vit_small"], r"model\.backbone: 'vit_tiny' in the file"),
        (["--checkpoint", "best", "--run_dir", "nowhere"], r"nowhere/config\.yaml does not exist"),
        (["--split", "dev", "--data.dev_list", "null"], r"data\.dev_list: is not set"),
        (["--data.normalization", "half"], r"data\.normalization: 'imagenet' in the file"),
        (["--eval.views_per_forward", "0"], r"eval\.views_per_forward: expected 1 or more"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(trained, run_tool, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_tool("evaluate", "--run_dir", trained, *arguments, "--out", tmp_path / "out")


def test_results_of_another_list_are_not_overwritten(trained, tiny_set, run_tool, tmp_path):
    run_tool("evaluate", "--run_dir", trained, "--out", tmp_path / "out")
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="holds the results of another list"):
        run_tool("evaluate", "--run_dir", trained, "--split", "dev", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


def test_options_without_effect_on_a_scores_file_are_refused(run_tool):
    with pytest.raises(ValueError, match=r"--eval\.num_clips, --split: has no effect with"):
        run_tool("evaluate", "--from-scores", "x.npz", "--split", "dev", "--eval.num_clips", 1)


def test_other_label_names_are_refused_with_the_differences(trained, run_tool, tmp_path):
    (tmp_path / "labels.txt").write_text("red\nlime\nblue\n")
    arguments = ["--data.label_names", tmp_path / "labels.txt", "--out", tmp_path / "out"]
    with pytest.raises(ValueError, match="1: 'green' / 'lime'"):
        run_tool("evaluate", "--run_dir", trained, *arguments)


def test_another_number_of_classes_is_refused(trained, run_tool, tmp_path):
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\nviolet\n")
    arguments = ["--data.label_names", tmp_path / "labels.txt", "--out", tmp_path / "out"]
    with pytest.raises(ValueError, match="num_classes: 3 in the file, 4 asked for"):
        run_tool("evaluate", "--run_dir", trained, *arguments)


def test_another_backbone_is_refused(trained, tiny_set, run_tool, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_set.weights)
    tensors["blocks.3.mlp.fc1.bias"][0] += 1e-3
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="trained on another backbone"):
        run_tool(
            "evaluate", "--run_dir", trained, "--model.weights", tmp_path / "other.safetensors"
        )


def test_a_truncated_adapter_is_named(trained, run_tool, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for name in ("last", "best"):
        file = run / name / "adapter.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"adapter\.safetensors is damaged"):
        run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "out")


def test_a_list_with_a_repeated_video_is_refused(trained, tiny_set, run_tool, tmp_path):
    from vidadapt.lists import Sample

    write_list(tmp_path / "list.txt", [Sample("test 0 [x]#.mp4", 0), Sample("test 0 [x]#.mp4", 1)])
    with pytest.raises(ValueError, match=r"list\.txt:2"):
        run_tool("evaluate", "--run_dir", trained, "--data.test_list", tmp_path / "list.txt",
                 "--out", tmp_path / "out")  # fmt: skip


@pytest.mark.parametrize("fusion", ["softmax", "logits"])
def test_the_loss_is_that_of_the_fused_distribution_of_readable_videos(fusion):
    logits = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32) * 4
    logits[2] = np.nan
    views = np.arange(3)
    labels = np.array([0, 4, 1, 2])
    scores = Scores(list("abcd"), labels, views, views * 0, logits, {"c": "cut short"})
    by_hand = []
    for video in (0, 1, 3):
        exact = logits[video].astype(np.float64)
        if fusion == "softmax":
            shares = [np.exp(view) / np.exp(view).sum() for view in exact]
            fused = sum(shares) / 3
        else:
            mean = exact.mean(0)
            fused = np.exp(mean) / np.exp(mean).sum()
        by_hand.append(-np.log(fused[labels[video]]))
    assert measure(scores, fusion)["loss"] == pytest.approx(np.mean(by_hand), rel=1e-12)


@pytest.mark.parametrize("fusion", ["softmax", "logits"])
def test_the_loss_is_finite_where_the_label_has_no_chance(fusion):
    logits = np.array([[[0.0, 5000.0], [0.0, 3000.0]]], np.float32)
    scores = Scores(["a"], np.array([0]), np.arange(2), np.zeros(2, int), logits, {})
    # Of the mean of both distributions e^-3000 / 2 is left; of the mean logits e^-4000.
    expected = 3000 + np.log(2) if fusion == "softmax" else 4000
    assert measure(scores, fusion)["loss"] == pytest.approx(expected)


def test_a_class_that_lost_all_its_videos_counts_with_0():
    """Class 1 is unreadable as a whole, class 2 in part, class 3 is not in the list."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = measure(one_view(np.eye(4)[labels], labels, unreadable=(2, 3, 5)), "softmax")
    assert [entry["top1"] for entry in found["per_class"]] == [100.0, 0.0, 50.0, None]
    assert found["mean_class_accuracy"] == 50.0
    assert found["top1"] == pytest.approx(50.0) and found["top5"] == pytest.approx(50.0)


@pytest.mark.parametrize(("name", "fits"), [("a\u200b\u202e é.mp4", True), ("a\x1b[2J", False)])
def test_scores_of_names_that_a_list_may_hold_are_read_again(tmp_path, name, fits):
    scores = replace(one_view(np.eye(2), np.array([0, 1])), paths=[name, "b"])
    save_scores(tmp_path / "scores.npz", scores, {})
    if fits:
        assert load_scores(tmp_path / "scores.npz")[0].paths == [name, "b"]
    else:
        with pytest.raises(ValueError, match="paths with control characters"):
            load_scores(tmp_path / "scores.npz")


def test_each_metric_is_reported_under_its_name():
    labels = np.array([0, 1])
    found = measure(one_view(np.eye(2), labels), "softmax")
    assert found.keys() > METRICS.keys()
    for name, metric in METRICS.items():
        worse = measure(one_view(np.eye(2)[::-1], labels), "softmax")[name]
        assert (found[name] >= worse) if metric.better == "up" else (found[name] < worse)
