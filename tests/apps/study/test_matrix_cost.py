"""What a cell costs: counts against closed formulas and real runs, measured figures consistent."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch
from conftest import TinySet, processes_with

from vidadapt import data, methods, models
from vidadapt.apps.study import benchmark, cost
from vidadapt.apps.study.benchmark import NOISY_PERCENT
from vidadapt.apps.study.loading import Batching, loader_seconds
from vidadapt.config import Config, ConfigError, command_line
from vidadapt.data.worker_count import cores
from vidadapt.lists import ListError
from vidadapt.runs import assemble

pytestmark = pytest.mark.slow  # whole commands

# vit_tiny on crops of 32 pixels: width, blocks, values of a tubelet, classes of the tiny set.
D, L, PIXELS, K = 192, 6, 2 * 16 * 16 * 3, 3
HEAD = 2 * D * K
PLACES = 2 * 2
RANK, PROMPTS, TIME_RANK, PLACE_RANK = 16, 5, 3, 7
KEYS = {
    *("method", "options", "frames", "epochs", "base_lr"),
    *("trainable", "total", "share_percent", "adapter_bytes"),
    *("forward_flops_per_clip", "training_flops_per_clip"),
    *("backbone", "crop_size", "num_classes", "precision", "device", "batch_size", "threads"),
    *("step_seconds", "step_spread_percent", "peak_memory_bytes", "peak_process_bytes"),
    *("matmul_tflops", "matmul_share"),
    *("data_seconds_per_clip", "data_spread_percent", "data_share", "clips_per_second"),
    *("epoch_seconds", "noisy"),
}


def configuration(tiny_set: TinySet, *words: object, **changes: object) -> Config:
    line = [*tiny_set.options(**changes), "--run_dir", "unused", *map(str, words)]
    return command_line.parse_train(line, methods.METHODS)[0]


def backbone_parameters() -> int:
    embedding = PIXELS * D + D
    weights = 3 * D * D + D * D + 2 * 4 * D * D  # qkv, projection, MLP
    biases = 2 * D + D + 4 * D + D  # keys have none
    return embedding + L * (weights + biases + 2 * 2 * D)


def read_out_parameters() -> int:
    return 2 * D + (D + 1) * K  # fc_norm; the head's BatchNorm has no weights


def parts(tokens: int) -> tuple[int, int]:
    """FLOPs of a block's linear layers and of its attention's two products."""
    return 2 * tokens * 12 * D * D, 2 * (2 * tokens * tokens * D)


def tokens_of(frames: int) -> int:
    return frames // 2 * PLACES


def plain_forward(frames: int) -> int:
    return embedding(frames) + L * sum(parts(tokens_of(frames))) + HEAD


def embedding(frames: int) -> int:
    return 2 * tokens_of(frames) * PIXELS * D


def linear(frames: int) -> tuple[int, int, int]:
    """What a method adds, its FLOPs forward beside the plain ones, and those of its gradients."""
    return 0, 0, 2 * HEAD


def adaptformer(frames: int) -> tuple[int, int, int]:
    """Gradients of inputs alone in the frozen layers above the first adapter, of both factors in
    attention, of weights and inputs in adapters; what enters the first one wants none.
    """
    linears, products = parts(tokens_of(frames))
    down = 2 * tokens_of(frames) * D * RANK  # as many as up
    backward = 2 * HEAD + (L - 1) * (linears + 2 * products) + L * 4 * down - down
    return L * (2 * D * RANK + RANK + D), L * 2 * down, backward


def arc(frames: int) -> tuple[int, int, int]:
    """Two adapters a block, the first in front of all its layers, so that all want gradients."""
    linears, products = parts(tokens_of(frames))
    down = 2 * tokens_of(frames) * D * RANK
    backward = 2 * HEAD + L * (linears + 2 * products) + 2 * L * 4 * down - down
    return 2 * D * RANK + 2 * L * (RANK + D), 2 * L * 2 * down, backward


def vpt(frames: int) -> tuple[int, int, int]:
    """Prompts are more tokens of every block, and want gradients from the first one on."""
    linears, products = parts(tokens_of(frames) + PROMPTS)
    forward = L * (linears + products - sum(parts(tokens_of(frames))))
    return L * PROMPTS * D, forward, 2 * HEAD + L * (linears + 2 * products)


def losa(frames: int) -> tuple[int, int, int]:
    """No gradients but the side network's own; what enters it wants none."""
    tokens, times = tokens_of(frames), frames // 2
    down = 2 * tokens * D * RANK
    mixers = sum(2 * 2 * tokens * rank * RANK for rank in (TIME_RANK, PLACE_RANK))
    parameters = 2 * D * RANK + RANK + D
    for count, rank in ((times, TIME_RANK), (PLACES, PLACE_RANK)):
        parameters += 2 * count * rank + rank + count
    forward = L * (2 * down + mixers)
    return L * parameters, forward, 2 * HEAD + 2 * forward - down


CLOSED = {
    linear: {},
    adaptformer: {"bottleneck": RANK},
    arc: {"rank": RANK},
    vpt: {"num_prompts": PROMPTS},
    losa: {"channel_rank": RANK, "temporal_rank": TIME_RANK, "spatial_rank": PLACE_RANK},
}


@pytest.mark.parametrize("frames", [2, 4, 8])
@pytest.mark.parametrize("method", CLOSED, ids=lambda method: method.__name__)
def test_counts_are_the_closed_formulas(tiny_set, frames, method):
    words = [f"--method.{key}={value}" for key, value in CLOSED[method].items()]
    name = ("--method.name", method.__name__)
    found = cost.counts(configuration(tiny_set, *name, *words, data__num_frames=frames))
    added, more, backward = method(frames)
    trainable = added + read_out_parameters()
    total = backbone_parameters() + trainable
    assert (found.trainable, found.total) == (trainable, total)
    assert found.share_percent == pytest.approx(100 * trainable / total)
    forward = plain_forward(frames) + more
    assert found.forward_flops_per_clip == forward
    assert found.training_flops_per_clip == forward + backward


@pytest.mark.parametrize("frames", [2, 4, 8])
def test_full_counts_three_forward_passes_less_the_gradient_of_pixels(tiny_set, frames):
    found = cost.counts(configuration(tiny_set, "--method.name", "full", data__num_frames=frames))
    total, plain = backbone_parameters() + read_out_parameters(), plain_forward(frames)
    assert (found.trainable, found.total, found.share_percent) == (total, total, 100.0)
    assert found.forward_flops_per_clip == plain
    assert found.training_flops_per_clip == 3 * plain - embedding(frames)


def test_flops_grow_with_the_frames_but_for_attentions_square(tiny_set):
    """With adapters, too: f(8) - 2 f(4) is what attention among twice the tokens takes more."""
    words = ("--method.name", "adaptformer", "--method.bottleneck", RANK)
    four, eight = (
        cost.counts(configuration(tiny_set, *words, data__num_frames=frames)) for frames in (4, 8)
    )
    _, products = parts(tokens_of(4))
    more = eight.forward_flops_per_clip - 2 * four.forward_flops_per_clip
    assert more == L * (4 * products - 2 * products) - HEAD


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_clip_of_one_tubelet_trains_and_counts_as_a_run_of_it(tiny_set, run_tool, tmp_path, name):
    changes = {
        "data__num_frames": 2,
        "data__dev_list": None,
        "data__test_list": None,
        "train__epochs": 1,
        "train__base_lr": 0.01,
    }
    run_tool(
        "train", *tiny_set.options(**changes), "--method.name", name, "--run_dir", tmp_path / "run"
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = cost.counts(configuration(tiny_set, "--method.name", name, **changes))
    assert summary["last"]["train_loss"] > 0
    assert (found.trainable, found.total) == (summary["trainable"], summary["total"])
    file = tmp_path / "run" / "last" / "adapter.safetensors"
    assert found.adapter_bytes == file.stat().st_size
    assert 0 < found.forward_flops_per_clip < found.training_flops_per_clip


@pytest.mark.parametrize(
    "changes",
    [
        {"model__tubelet_size": 4},
        {"model__patch_size": 8},
        {"model__head": "attentive"},
        {"data__crop_size": 64},
    ],
)
def test_counts_follow_every_setting_that_shapes_the_model(tiny_set, changes):
    words = ("--method.name", "full")
    cfg = configuration(tiny_set, *words, **{"model__weights": None, **changes})
    model, _, _ = assemble.adapted_model(cfg, data.resolve(cfg.data, cfg.eval))
    found = cost.counts(cfg)
    assert found.total == sum(p.numel() for p in model.parameters())
    plain = cost.counts(configuration(tiny_set, *words))
    assert found.forward_flops_per_clip != plain.forward_flops_per_clip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__num_frames": 3}, "num_frames is 3"),
        ({"data__crop_size": 40}, "crop_size is 40"),
        ({"model__weights": "gone.safetensors"}, r"model\.weights: gone\.safetensors: no such"),
        ({"cache__dir": "features"}, r"cache\.dir: .* leave it out"),
        ({"data__label_names": None}, r"data\.label_names"),
        ({"model__backbone": "vit_tny"}, "did you mean vit_tiny"),
    ],
)
def test_what_is_impossible_is_refused_while_counting(tiny_set, changes, message):
    with pytest.raises(ValueError, match=message):
        cost.counts(configuration(tiny_set, **changes))


@pytest.fixture(scope="module")
def measured(tiny_set) -> tuple[dict, list[str]]:
    """The line of a cell, and the command lines of processes that it left behind."""
    cfg = configuration(
        tiny_set,
        *("--method.name", "full"),
        data__num_frames=2,
        data__num_workers=1,
        train__optimizer="adamw",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDADAPT_COST_TEST", str(os.getpid()))
        patch.setenv("OMP_NUM_THREADS", "1")
        line = cost.cell_cost(cfg, processes=1, steps=3)
        return line, processes_with(f"VIDADAPT_COST_TEST={os.getpid()}")


def test_a_measured_cell_has_every_figure_and_they_agree(tiny_set, measured):
    line, _ = measured
    assert set(line) == KEYS
    assert json.loads(json.dumps(line)) == line
    assert (line["method"], line["options"], line["frames"]) == ("full", {}, 2)
    assert (line["device"], line["precision"]) == (
        "cuda" if torch.cuda.is_available() else "cpu",
        "fp32",
    )
    assert (line["batch_size"], line["num_classes"], line["threads"]) == (4, K, 1)
    for key in ("step_seconds", "matmul_tflops", "matmul_share", "data_seconds_per_clip"):
        assert line[key] > 0
    step, loading = line["step_seconds"] / 4, line["data_seconds_per_clip"]
    assert 0 < line["data_share"] < 1
    assert line["data_share"] == pytest.approx(loading / (loading + step))
    rate = line["training_flops_per_clip"] / step / 1e12
    assert line["matmul_share"] == pytest.approx(rate / line["matmul_tflops"])
    # One thread computes, one process loads.
    beside = line["device"] == "cuda" or cores() > 1
    both = max(loading, step) if beside else loading + step
    assert line["clips_per_second"] == pytest.approx(1 / both)
    assert line["epoch_seconds"] == pytest.approx(12 * both)
    spreads = ("step_spread_percent", "data_spread_percent")
    assert line["noisy"] == [key for key in spreads if line[key] > NOISY_PERCENT]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of processes")
def test_a_measured_cell_tells_the_memory_of_its_own_optimiser(measured):
    line, _ = measured
    sgd = benchmark.in_fresh_process(
        benchmark.measure,
        benchmark.Setting("vit_tiny", 2, 32, K, batch_size=4, device=line["device"]),
        {"name": "full"},
        steps=3,
        threads=1,
    )
    # AdamW keeps a moment more, 4 bytes a weight; what else there is varies by less than a half.
    assert line["peak_memory_bytes"] - sgd.peak_memory_bytes > 0.5 * 4 * line["total"]
    assert line["peak_process_bytes"] > line["peak_memory_bytes"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of processes")
def test_a_measured_cell_leaves_no_process_behind(measured):
    _, left = measured
    # Python's own, which lives as long as the process that measures.
    assert [command for command in left if "resource_tracker" not in command] == []


def loader_of(cfg: Config, processes: int, batch_size: int = 4):
    plan = data.resolve(cfg.data, cfg.eval)
    return loader_seconds(cfg.data, plan, Batching(batch_size, 1, 0), processes, None)


def test_an_epoch_has_the_clips_of_all_processes(tiny_set):
    found = loader_of(configuration(tiny_set, data__repeated_augmentation=2), processes=2)
    assert found.clips_per_epoch == 24  # 12 videos twice, in 3 global batches of 8
    assert found.num_workers == 0
    assert len(found.seconds_per_clip) > 1 and min(found.seconds_per_clip) > 0


def test_a_list_that_training_would_refuse_is_refused(tiny_set, tmp_path):
    lost = tmp_path / "lost.txt"
    lost.write_text("gone.mp4 0\n")
    with pytest.raises(ListError, match=r"lost\.txt:1"):
        loader_of(configuration(tiny_set, data__train_list=lost), processes=1)
    with pytest.raises(ConfigError, match=r"data\.train_list"):
        loader_of(configuration(tiny_set, data__train_list=None), processes=1)
    with pytest.raises(ValueError, match="fewer than one global batch"):
        loader_of(configuration(tiny_set), processes=4)


def test_processes_share_the_cores_unless_the_user_says(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cost.threads_of(1) is None
    assert cost.threads_of(2) == max(1, cores() // 2)
    assert cost.threads_of(1 + cores()) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cost.threads_of(2) is None


def test_the_ceiling_is_that_of_the_models_own_layers():
    """A class token counts; a hierarchical model is judged by its longest stage."""
    expected = {
        ("vit_tiny", None): (8, D),
        ("timm/vit_tiny_patch16_224", "inflate"): (8 + 1, 192),
        ("timm/vit_tiny_patch16_224", "frames"): (4 * (4 + 1), 192),
    }
    for (backbone, from_image), (tokens, width) in expected.items():
        setting = benchmark.Setting(
            backbone=backbone, num_frames=4, crop_size=32, from_image=from_image
        )
        with torch.device("meta"):
            model = benchmark.bare_model(setting)
        found, shapes = cost.block_products(model)
        assert found == tokens
        assert shapes == [
            (width, 3 * width),
            (width, width),
            (width, 4 * width),
            (4 * width, width),
        ]


@pytest.mark.parametrize("head", models.HEADS)
def test_a_model_without_storage_runs_with_every_head(head):
    """As counts and ceilings need it."""
    setting = benchmark.Setting(backbone="vit_tiny", num_frames=4, crop_size=32, head=head)
    with torch.device("meta"):
        model = benchmark.bare_model(setting)
    assert cost.block_products(model)[0] == 8
