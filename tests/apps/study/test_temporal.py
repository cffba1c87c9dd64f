"""The temporal report: frames in other orders, against a slow reference that permutes by hand."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import ALONE, launch, load_tool, write_adapter
from torch import nn

from vidadapt import methods
from vidadapt.apps.study.temporal import (
    ORDERS,
    frame_orders,
    holm,
    sensitivity,
    shuffle,
    sign_test,
    verdicts,
)
from vidadapt.apps.study.temporal_report import MOST_CLASSES, class_order, markdown, write_pictures
from vidadapt.apps.synthetic import write_video
from vidadapt.config import command_line, yaml_files
from vidadapt.data import eval_loader, load_list, resolve
from vidadapt.data.clips import view_chunks
from vidadapt.data.sampling import eval_indices
from vidadapt.evaluation import in_each_order, in_percent, score_views
from vidadapt.lists import Sample, read_list, write_list

T, K, SIDE, WIDTH, CLIPS, CROPS = 4, 3, 32, 44, 2, 3
LEFTS = [0, 6, 12]
BROKEN = 5


class Linear(nn.Module):
    """Logits linear in the brightness of each frame's left half, with weights (T, K)."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return clip[..., : SIDE // 2].mean(dim=(1, 3, 4)) @ self.weights


TIMED = Linear(torch.randn(T, K, generator=torch.Generator().manual_seed(0)) * 9)


def cfg_of(folder: Path):
    words = {"root": folder, "train_list": folder / "list.txt", "label_names": folder / "names.txt",
             "sampling": "uniform8", "num_frames": T, "crop_size": SIDE, "num_workers": 0,
             "normalization": "half"}  # fmt: skip
    argv = [f"--data.{key}={value}" for key, value in words.items()]
    argv += ["--run_dir=x", f"--eval.num_clips={CLIPS}", f"--eval.num_crops={CROPS}"]
    return command_line.parse_train(argv, methods.METHODS)[0]


@pytest.fixture(scope="module")
def flicker(tmp_path_factory) -> Path:
    """40 videos whose brightness changes at random from frame to frame, one of them cut off.

    Three in four have the label that `TIMED` gives them.
    """
    folder = tmp_path_factory.mktemp("flicker")
    rng = np.random.default_rng(0)
    samples = []
    for number in range(40):
        levels = rng.integers(20, 230, (9 + number % 8, 1, 1, 1))
        frames = np.broadcast_to(levels, (len(levels), SIDE, WIDTH, 3)).astype(np.uint8).copy()
        frames[:, :, ::7] //= 2
        write_video(folder / f"{number}.mp4", frames, 12)
        samples.append(Sample(f"{number}.mp4", 0))
    (folder / "names.txt").write_text("a\nb\nc | $d$\n")
    write_list(folder / "list.txt", samples)
    given = by_hand(folder, TIMED)["in_order"].argmax(1)
    guess = [int((g + (i % 4 == 0)) % K) for i, g in enumerate(given)]
    write_list(
        folder / "list.txt", [Sample(s.path, g) for s, g in zip(samples, guess, strict=True)]
    )
    broken = folder / f"{BROKEN}.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    return folder


def by_hand(folder: Path, model: Linear, skip: int | None = None) -> dict[str, np.ndarray]:
    """Order -> (N, K) mean softmax over the views; every frame decoded in turn, float64."""
    plan = resolve(cfg_of(folder).data, cfg_of(folder).eval)
    weights = model.weights.double().numpy()
    found: dict[str, list[np.ndarray]] = {order: [] for order in ORDERS}
    for number in range(40):
        if number == skip:
            for order in ORDERS:
                found[order].append(np.zeros(K))
            continue
        with av.open(str(folder / f"{number}.mp4")) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        mixed = shuffle(f"{number}.mp4", T, 3).tolist()
        orders = [[0, 1, 2, 3], [3, 2, 1, 0], mixed, [2, 2, 2, 2]]
        for order, places in zip(ORDERS, orders, strict=True):
            views = []
            for clip in eval_indices(plan.sampling, len(frames), CLIPS):
                for left in LEFTS:
                    shown = [frames[clip[place]][:, left : left + SIDE // 2] for place in places]
                    means = np.array([(f / 255 - 0.5).mean() / 0.5 for f in shown])
                    exponents = np.exp(means @ weights)
                    views.append(exponents / exponents.sum())
            found[order].append(np.mean(views, axis=0))
    return {order: np.stack(values) for order, values in found.items()}


def scored(folder: Path, model: nn.Module, orders: torch.Tensor | None, views_per_forward: int = 4):
    cfg = cfg_of(folder)
    plan = resolve(cfg.data, cfg.eval)
    samples = read_list(cfg.data.train_list, cfg.data.root, K)
    videos = load_list(cfg.data, plan, cfg.data.train_list, samples, training=False, progress=False)
    return score_views(
        model, eval_loader(cfg.data, plan, videos), paths=[s.path for s in samples],
        labels=[s.label for s in samples], num_classes=K, num_clips=CLIPS, num_crops=CROPS,
        normalization="half", views_per_forward=views_per_forward, precision="fp32", world=ALONE,
        orders=orders, shown=False,
    )  # fmt: skip


PATHS = [f"{number}.mp4" for number in range(40)]


def test_accuracies_and_changes_are_those_of_frames_permuted_by_hand(flicker):
    scores = scored(flicker, TIMED, frame_orders(PATHS, T, 3))
    found = sensitivity(scores, "softmax", ["a", "b", "c"])
    reference = by_hand(flicker, TIMED, skip=BROKEN)
    labels = np.array([s.label for s in read_list(flicker / "list.txt", flicker, K)])
    guesses = {order: values.argmax(1) for order, values in reference.items()}
    right = {order: guess == labels for order, guess in guesses.items()}
    for hits in right.values():
        hits[BROKEN] = False
    assert len({hits.sum() for hits in right.values()}) > 2  # the orders differ
    for order, hits in right.items():
        assert found["orders"][order]["top1"] == pytest.approx(100 * hits.mean())
        per_class = [100 * hits[labels == k].mean() for k in range(K)]
        assert [c["top1"] for c in found["orders"][order]["per_class"]] == pytest.approx(per_class)
        mean = found["orders"][order]["mean_class_accuracy"]
        assert mean == pytest.approx(np.mean(per_class))
    before = right["in_order"]
    for order in ORDERS[1:]:
        paired, after = found["paired"][order], right[order]
        lost, won = (before & ~after).sum(), (~before & after).sum()
        assert (paired["right_to_wrong"], paired["wrong_to_right"]) == (lost, won)
        assert paired["other_prediction"] == (guesses[order] != guesses["in_order"]).sum()
        points = found["differences"][order]["top1"]
        assert points == pytest.approx(100 * (won - lost) / 40)
        for key, whole in paired.items():
            if isinstance(whole, int):
                assert whole == sum(c["paired"][order][key] for c in found["classes"])
    assert sum(c["num_videos"] for c in found["classes"]) == 40
    for one in found["classes"]:
        own, top1 = labels == one["label"], one["top1"]
        assert one["lost"] == top1["in_order"] - min(top1["reversed"], top1["shuffled"])
        own[BROKEN] = False
        others = Counter(g for g in guesses["reversed"][own].tolist() if g != one["label"])
        assert others[one["reversed_as"]["label"]] == max(others.values())
    assert [entry["path"] for entry in found["unreadable"]] == [f"{BROKEN}.mp4"]


@pytest.mark.parametrize("views_per_forward", [1, 4, 100])
def test_in_order_the_logits_are_those_of_the_evaluation(flicker, views_per_forward):
    plain = scored(flicker, TIMED, None, views_per_forward)
    orders = frame_orders(PATHS, T, 0)
    in_order, back, mixed, still = in_each_order(
        scored(flicker, TIMED, orders, views_per_forward), 4
    )
    assert np.array_equal(in_order.logits, plain.logits, equal_nan=True)
    alone = scored(flicker, TIMED, orders[:, 1:2], views_per_forward)
    assert np.array_equal(back.logits, alone.logits, equal_nan=True)
    readable = [i for i in range(40) if i != BROKEN]
    for one in (back, mixed, still):
        assert (one.logits[readable] != plain.logits[readable]).any(axis=(1, 2)).mean() > 0.9
        assert np.array_equal(one.clips, plain.clips) and np.array_equal(one.crops, plain.crops)


def test_reversed_twice_is_in_order():
    item = {"frames": torch.randint(0, 256, (9, 8, 12, 3), dtype=torch.uint8),
            "clips": torch.tensor([[0, 2, 5, 8], [1, 1, 3, 4]]),
            "corners": torch.tensor([[0, 0], [0, 4]])}  # fmt: skip
    flip, device = torch.tensor([[3, 2, 1, 0]]), torch.device("cpu")
    turned = {**item, "clips": item["clips"].flip(1)}
    plain = torch.cat(list(view_chunks(item, 3, device)))
    assert torch.equal(torch.cat(list(view_chunks(turned, 3, device, flip))), plain)
    once = torch.cat(list(view_chunks(item, 3, device, flip)))
    assert torch.equal(once, plain.flip(2)) and not torch.equal(once, plain)


def test_a_model_that_takes_the_mean_of_the_frames_loses_nothing_without_their_order(flicker):
    weights = torch.tensor([[9.0, -4.0, 1.0]]).expand(T, K) / T
    model = Linear(weights)
    found = sensitivity(scored(flicker, model, frame_orders(PATHS, T, 0)), "softmax", None)
    for order in ("reversed", "shuffled"):
        assert found["orders"][order] == found["orders"]["in_order"]
        assert found["paired"][order] == {
            "right_to_wrong": 0, "wrong_to_right": 0, "other_prediction": 0, "p": 1, "p_holm": 1
        }  # fmt: skip
    assert found["paired"]["one_frame"]["other_prediction"] > 0
    assert not found["uses_order"] and found["classes_using_order"] == []
    [line] = verdicts([{"name": "mean", "num_frames": T, **found}])
    assert line.startswith("mean: ") and "no measurable use of the order" in line


def test_shuffles_are_of_the_video_alone_and_never_the_identity():
    for frames in range(1, 17):
        orders = frame_orders(PATHS, frames, seed=1)
        assert orders.shape == (40, 4, frames)
        assert (orders[:, 2].sort(dim=1).values == torch.arange(frames)).all()
        if frames > 1:
            assert (orders[:, 2] != torch.arange(frames)).any(dim=1).all()
        if frames == 2:
            assert torch.equal(orders[:, 2], orders[:, 1])
        assert torch.equal(frame_orders(PATHS[7:20][::-1], frames, 1).flip(0), orders[7:20])
    assert not torch.equal(frame_orders(PATHS, 8, 0), frame_orders(PATHS, 8, 1))
    drawn = Counter(tuple(shuffle(f"{i} ü.mp4", 3, 0)) for i in range(1000))
    assert len(drawn) == 5 and min(drawn.values()) > 150


def test_the_sign_test_counts_every_way_the_changes_could_have_gone():
    for number in range(9):
        ways = [sum(way) for way in itertools.product((0, 1), repeat=number)]
        for one in range(number + 1):
            # As uneven as this or more, in either direction.
            uneven = [abs(2 * w - number) >= abs(2 * one - number) for w in ways]
            assert sign_test(one, number - one) == pytest.approx(np.mean(uneven), rel=1e-12)
    assert sign_test(60, 40) == pytest.approx(0.05688793364098089, rel=1e-12)  # R's binom.test
    assert sign_test(0, 5) == sign_test(5, 0) == 2 / 32
    assert sign_test(9000, 8000) < 1e-13
    assert sign_test(20000, 0) == 0


def test_holm_rejects_what_its_steps_reject():
    """Step down: compare the smallest p with alpha / m, the next with alpha / (m - 1), ..."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(0, 0.1, 5).round(3).tolist()
        rejected: set[int] = set()
        for step, place in enumerate(sorted(range(5), key=p.__getitem__)):
            if p[place] >= 0.05 / (5 - step):
                break
            rejected.add(place)
        assert {i for i, adjusted in enumerate(holm(p)) if adjusted < 0.05} == rejected


def model_of(name: str, lost: dict[int, float]) -> dict:
    """A model of one line a class, that loses so many points of 100 when reversed."""

    def top1(points):
        return {"in_order": 100.0, "reversed": 100.0 - points, "shuffled": 100.0, "one_frame": 9.0}

    change = {"right_to_wrong": 3, "wrong_to_right": 1, "other_prediction": 5, "p": 0.5,
              "p_holm": 0.5}  # fmt: skip
    order = {**dict.fromkeys(in_percent(), 50.0), "per_class": list(lost)}
    return {
        "name": name, "num_frames": 8, "views": "1 clips x 1 crops", "num_videos": 100,
        "unreadable": [], "orders": dict.fromkeys(ORDERS, order),
        "paired": dict.fromkeys(ORDERS[1:], change), "uses_time": True, "uses_order": False,
        "classes_using_time": [], "classes_using_order": [],
        "differences": dict.fromkeys(ORDERS[1:], dict.fromkeys(("top1",), -1.0)),
        "classes": [
            {"label": label, "name": f"thing {label:03} | $x$", "num_videos": 10, "lost": points,
             "top1": top1(points), "paired": dict.fromkeys(ORDERS[1:], change), "reversed_as": None}
            for label, points in lost.items()
        ],
    }  # fmt: skip


def test_the_picture_of_many_classes_shows_those_that_lose_most_and_least(tmp_path):
    one = model_of("one", {label: float(label % 87) for label in range(174)})
    two = model_of("two", {label: float(label % 87) for label in range(174)})
    order = class_order([one, two])
    assert order[:2] == [86, 173] and order[-2:] == [0, 87]
    files = write_pictures({"models": [one, two]}, tmp_path)
    assert [file.name for file in files] == ["temporal.png", "temporal.svg"]
    drawn = files[1].read_text(encoding="utf-8")
    named = [label for label in range(174) if f"thing {label:03}" in drawn]
    half = MOST_CLASSES // 2
    assert named == sorted(order[:half] + order[-half:])
    few = model_of("few", dict.fromkeys(range(12), 1.0))
    drawn = write_pictures({"models": [few]}, tmp_path)[1].read_text(encoding="utf-8")
    assert all(f"thing {label:03}" in drawn for label in range(12))
    assert not list(tmp_path.glob(".*"))


def test_classes_too_small_for_the_test_are_pointed_out():
    # Two classes are four tests of the order: 4 * 2 / 2**n < 0.05 from n = 8 on.
    model = model_of("one", {0: 10.0, 1: 90.0})
    assert "Fewer than" not in verdicts([model])[0]
    model["classes"][1]["num_videos"] = 8
    assert "Fewer than" not in verdicts([model])[0]
    model["classes"][1]["num_videos"] = 7
    assert "Fewer than 8 videos" in verdicts([model])[0]
    assert verdicts([model])[0].endswith("can hardly be measured: 1 of 2 classes.")


def test_several_models_stand_side_by_side_in_the_table():
    models = [model_of("one", {0: 10.0, 1: 90.0}), model_of("two", {0: 20.0, 1: 30.0})]
    text = markdown({"verdicts": verdicts(models), "list": "test.txt", "seed": 0, "models": models})
    rows = text[text.index("## What the order is worth") :].splitlines()
    cells = [[c.strip() for c in row.split(" | ")[1:]] for row in rows if "thing" in row]
    assert cells == [["10", "90.0", "30.0 |"], ["10", "10.0", "20.0 |"]]
    assert "time is used by all 2 of these models, the order by none of 2" in text


def test_names_that_look_like_tags_stay_legible():
    model = model_of("<run>", {0: 10.0})
    model["classes"][0]["name"] = "<b>up</b>"
    model["classes_using_order"] = ["<b>up</b>", "other"]
    model["unreadable"] = [{"path": "a.mp4", "error": "<av error>"}]
    report = {"verdicts": verdicts([model]), "list": "test.txt", "seed": 0, "models": [model]}
    text = markdown(report)
    assert text.count("\\<b>") == 2 and text.count("\\<run>") >= 2 and "\\<av error>" in text
    assert re.search(r"(?<!\\)<(?=[a-z/])", text) is None


@pytest.fixture(scope="module")
def two_models(tiny_set, tmp_path_factory) -> tuple[Path, Path]:
    """A run's folder, and an adapter of another method alone."""
    folder = tmp_path_factory.mktemp("models")
    made = []
    for name, method in (("adapted", "adaptformer"), ("alone", "linear")):
        argv = [*tiny_set.options(method__name=method), "--run_dir", str(folder / name)]
        cfg, _ = command_line.parse_train(argv, methods.METHODS)
        write_adapter(folder / name / "last", cfg, seed=1, spread=0.3)
        made.append(folder / name)
        if name == "adapted":
            (folder / name / "config.yaml").write_text(yaml_files.dump(cfg))
    return made[0], made[1] / "last"


VIEWS = ["--eval.num_clips", "2", "--eval.num_crops", "3"]


@pytest.mark.slow
def test_one_process_and_two_give_the_same_bits_and_the_evaluations_accuracy(
    two_models, tiny_set, run_tool, tmp_path
):
    run, alone = two_models
    videos = tmp_path / "videos"
    shutil.copytree(tiny_set.root, videos)
    (videos / "test 2 [x]#.mp4").write_bytes(b"no video")
    words = ["--data.root", videos, "--data.test_list", videos / "test.txt", *VIEWS]
    reports = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = launch("temporal", "--run_dir", run, "--adapter", alone, "--out", out, *words,
                      "--seed", 5, processes=processes)  # fmt: skip
        report = json.loads((out / "temporal.json").read_text())
        assert report["verdicts"][0] in done.stdout and str(out / "temporal.png") in done.stdout
        report.pop("seconds"), report.pop("environment")
        reports.append((report, (out / "temporal.md").read_text()))
    assert reports[0] == reports[1]
    report, text = reports[0]
    assert [model["name"] for model in report["models"]] == ["adapted", "alone/last"]
    assert len(report["verdicts"]) == 3
    for model in report["models"]:
        assert [entry["path"] for entry in model["unreadable"]] == ["test 2 [x]#.mp4"]
        assert model["num_videos"] == 7 and model["views"] == "2 clips x 3 crops"
        assert f"counted as wrong in every order: {model['name']}\n\n- test 2" in text
    for model, words_of in zip(report["models"], (["--run_dir", run], ["--adapter", alone]),
                               strict=True):  # fmt: skip
        run_tool("evaluate", *words_of, *words, "--out", tmp_path / model["name"])
        metrics = json.loads((tmp_path / model["name"] / "metrics.json").read_text())
        for key in ("top1", "top5", "mean_class_accuracy", "per_class"):
            assert model["orders"]["in_order"][key] == metrics[key]
        assert model["manifest"] == metrics["manifest"]


def test_a_report_of_one_run_lies_in_its_folder_and_of_another_list_is_kept(two_models, run_tool):
    run, _ = two_models
    run_tool("temporal", "--run_dir", run, "--split", "dev")
    out = run / "temporal_dev_last_2x3"
    names = {"temporal.json", "temporal.md", "temporal.png", "temporal.svg"}
    assert {path.name for path in out.iterdir()} == names
    with pytest.raises(ValueError, match="is a report on another list"):
        run_tool("temporal", "--run_dir", run, "--out", out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --run_dir FOLDER"),
        (["--run_dir", "a", "b"], "--out: give the folder"),
        (["--run_dir", "a", "a/.", "--out", "x"], "is given twice"),
        (["--run_dir", "a", "--seed", "-1"], "--seed: expected 0 or more"),
        (["--run_dir", "a", "--from-scores", "x.npz"], "hold one order of the frames"),
        (["--run_dir", "nowhere"], r"nowhere/config\.yaml does not exist"),
    ],
)
def test_what_cannot_be_asked_is_refused(run_tool, words, message):
    with pytest.raises(ValueError, match=message):
        run_tool("temporal", *words)


def test_models_of_a_repeated_option_all_count():
    words = ["--run_dir", "a", "--adapter", "x", "--run_dir", "b", "--adapter", "y", "--out", "o"]
    for _ in range(2):
        known = load_tool("temporal").parse(words)
        assert (known.run_dir, known.adapter) == (["a", "b"], ["x", "y"])


def test_models_of_different_lists_do_not_stand_side_by_side(
    two_models, tiny_set, run_tool, tmp_path
):
    run, _ = two_models
    other = tmp_path / "other"
    shutil.copytree(run / "last", other / "last")
    text = (run / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("test.txt", "dev.txt"))
    with pytest.raises(ValueError, match="whose videos or classes differ"):
        run_tool("temporal", "--run_dir", run, other, "--out", tmp_path / "out")
