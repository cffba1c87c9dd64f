"""What a method costs: closed formulas for what is counted, known toys for what is measured."""

from __future__ import annotations

import json
import os
import re

import pytest
import torch
from conftest import load_tool
from torch import nn

from vidadapt import methods
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import Setting
from vidadapt.apps.study.method_costs import remarks
from vidadapt.runs import checkpoints

pytestmark = pytest.mark.slow  # whole commands

TINY = Setting(backbone="vit_tiny", num_frames=4, crop_size=32, num_classes=5)
TINY_WORDS = ("--backbone", "vit_tiny", "--num_frames", "4", "--crop_size", "32")

# vit_tiny at TINY's size: width, blocks, tokens, values of a tubelet, classes.
D, L, N, PIXELS, K = 192, 6, 2 * 2 * 2, 3 * 2 * 16 * 16, 5
EMBED, HEAD = 2 * N * PIXELS * D, 2 * D * K
LINEARS = 2 * N * D * (3 * D + D + 4 * D + 4 * D)  # of a block: qkv, projection, MLP
PRODUCTS = 2 * (2 * N * N * D)  # of a block: Q K^T and scores V
FORWARD = EMBED + L * (LINEARS + PRODUCTS) + HEAD


def cost(*words: object) -> int:
    """Run the tool in this process; its exit status."""
    return load_tool("cost").main([str(word) for word in words])


def table_cells(text: str) -> dict[str, dict[str, str]]:
    """label -> heading -> cell of the Markdown table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def test_counts_of_vit_base_are_the_papers(tmp_path, capsys):
    expected = {
        "linear": 135_342,
        "vpt:num_prompts=1": 144_558,
        "vpt:num_prompts=8": 209_070,
        "adaptformer:bottleneck=16": 439_662,
        "adaptformer": 1_324_974,
        "adaptformer:layers=7-12": 730_158,
        "arc": 231_774,
        "arc:rank=50,positions=attention": 183_558,
        "full": 86_361_006,
    }
    file = tmp_path / "cost.json"
    cost("--method", *expected, "--no_time", "--json", file)
    entries = json.loads(file.read_text())
    assert {e["label"]: e["trainable"] for e in entries} == expected
    # The backbone, fc_norm and head are 86,361,006; what a method adds comes on top.
    for entry in entries:
        added = 0 if entry["label"] == "full" else entry["trainable"] - expected["linear"]
        assert entry["total"] == 86_361_006 + added
        assert entry["share_percent"] == pytest.approx(100 * entry["trainable"] / entry["total"])
        assert entry["step_seconds"] is None
    cells = table_cells(capsys.readouterr().out)
    assert {label: row["trainable"] for label, row in cells.items()} == {
        label: f"{number:,}" for label, number in expected.items()
    }
    assert "step s" not in cells["full"]


def test_flops_of_a_forward_pass_are_the_closed_formula():
    for name in ("linear", "full"):
        assert benchmark.count(TINY, {"name": name}).forward_flops_per_clip == FORWARD


def test_a_linear_probe_adds_only_its_heads_gradients():
    counts = benchmark.count(TINY, {"name": "linear"})
    assert counts.training_flops_per_clip == FORWARD + 2 * HEAD  # of weight, and for fc_norm


def test_full_fine_tuning_is_three_forward_passes_less_the_gradient_of_the_pixels():
    counts = benchmark.count(TINY, {"name": "full"})
    assert counts.training_flops_per_clip == 3 * FORWARD - EMBED


def test_adaptformer_computes_no_gradient_of_frozen_weights_or_below_its_first_layer():
    rank, first = 16, 3
    counts = benchmark.count(
        TINY, {"name": "adaptformer", "bottleneck": rank, "layers": f"{first}-{L}"}
    )
    adapters = L - first + 1
    product = 2 * N * D * rank  # down or up
    forward = FORWARD + adapters * 2 * product
    above = L - first  # blocks through which gradients run to the first adapter
    backward = (
        2 * HEAD
        + above * (LINEARS + 2 * PRODUCTS)  # inputs only; both factors of the products
        + adapters * 4 * product  # weight and input
        - product  # the first adapter's input wants no gradient
    )
    assert counts.forward_flops_per_clip == forward
    assert counts.training_flops_per_clip == forward + backward


@pytest.mark.parametrize("name", methods.METHODS)
def test_counting_without_storage_is_counting_while_computing(name):
    model = benchmark.adapted_random_model(TINY, {"name": name})
    clip, targets = benchmark.batch(TINY, torch.device("cpu"))
    forward, backward = benchmark.flops(model, clip, targets)
    counts = benchmark.count(TINY, {"name": name})
    per_clip = forward / TINY.batch_size, (forward + backward) / TINY.batch_size
    assert per_clip == (counts.forward_flops_per_clip, counts.training_flops_per_clip)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", methods.METHODS)
def test_adapter_bytes_are_those_of_the_file_that_a_run_saves(name, tmp_path):
    model = benchmark.adapted_random_model(TINY, {"name": name})
    checkpoints.save_checkpoint(tmp_path / "last", methods.trainable_state(model), {})
    size = (tmp_path / "last" / checkpoints.TENSORS).stat().st_size
    assert benchmark.count(TINY, {"name": name}).adapter_bytes == size


@pytest.mark.parametrize(
    ("trains", "kept"),
    [
        ({0, 2}, 4 * (3 * 10 + 3 * 20)),  # the input, and ReLU's output: once, though used twice
        ({2}, 4 * (3 * 20)),
        ({0}, 4 * (3 * 10 + 3 * 20)),  # the second layer keeps only its own weight
    ],
)
def test_bytes_kept_for_backward_of_a_small_network(trains, kept):
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    for number in (0, 2):
        network[number].requires_grad_(number in trains)
    x = torch.randn(3, 10)
    loss, found = benchmark.backward_bytes(network, lambda: network(x).sum())
    assert found == kept
    loss.backward()
    assert network[min(trains)].weight.grad is not None


def test_what_is_frozen_keeps_less_for_backward():
    kept = {}
    for label, method in {
        "linear": {"name": "linear"},
        "upper half": {"name": "adaptformer", "layers": "4-6"},
        "all layers": {"name": "adaptformer"},
        "full": {"name": "full"},
    }.items():
        model = benchmark.adapted_random_model(TINY, method)
        clip, _ = benchmark.batch(TINY, torch.device("cpu"))
        kept[label] = benchmark.backward_bytes(model, lambda m=model, c=clip: m(c).sum())[1]
    assert list(kept) == sorted(kept, key=kept.__getitem__)
    assert kept["linear"] < 0.02 * kept["full"]
    assert 0.4 < kept["upper half"] / kept["all layers"] < 0.6


def test_warm_up_steps_are_taken_and_not_counted():
    steps = []
    seconds = benchmark.step_seconds(
        lambda: steps.append(1), torch.device("cpu"), warmup=2, steps=3
    )
    assert (len(steps), len(seconds)) == (5, 3)


def test_table_and_json_agree(tmp_path, capsys):
    file = tmp_path / "cost.json"
    specs = ["full", "adaptformer:bottleneck=8,layers=[1,3]", "adaptformer:bottleneck=0"]
    cost("--method", *specs, *TINY_WORDS, "--threads", 1, "--steps", 2, "--json", file)
    output = capsys.readouterr()
    entries = {entry["label"]: entry for entry in json.loads(file.read_text())}
    cells = table_cells(output.out)
    assert list(entries) == list(cells) == specs
    full, adaptformer, impossible = entries.values()
    assert adaptformer["options"]["layers"] == [1, 3]
    assert full["step_time_ratio"] == 1.0
    assert adaptformer["step_time_compared_with"] == "full"
    assert (full["steps"], full["threads"], full["batch_size"]) == (2, 1, 2)
    # Weights, gradients and momentum, 4 bytes each.
    assert full["peak_memory_bytes"] > 3 * 4 * full["total"]
    for label in specs[:2]:
        entry, row = entries[label], cells[label]
        assert row["total"] == f"{entry['total']:,}"
        assert float(row["%"]) == pytest.approx(entry["share_percent"], abs=1e-3)
        assert float(row["file MB"]) == pytest.approx(entry["adapter_bytes"] / 1e6, abs=1e-3)
        assert float(row["training GFLOP"]) == pytest.approx(
            entry["training_flops_per_clip"] / 1e9, rel=1e-3
        )
        assert float(row["kept MB"]) == pytest.approx(
            entry["backward_bytes_per_clip"] / 1e6, abs=0.01
        )
        assert float(row["step s"]) == pytest.approx(entry["step_seconds"], rel=1e-2)
        assert float(row["x full"]) == pytest.approx(entry["step_time_ratio"], abs=0.01)
    assert "method.bottleneck: expected 1 or more" in impossible["problem"]
    assert impossible["trainable"] is None
    assert set(cells["adaptformer:bottleneck=0"].values()) == {""}
    assert f"{specs[2]}: {impossible['problem']}" in output.out
    assert set(full) == set(impossible)
    assert re.search(r"1/3 full: \d", output.err)


def test_a_method_that_the_backbone_rules_out_is_a_row_with_its_reason(tmp_path, capsys):
    file = tmp_path / "cost.json"
    backbone = "timm/swin_tiny_patch4_window7_224"
    options = ("--backbone", backbone, "--from_image", "frames", "--num_frames", 2, "--no_time")
    cost("--method", "vpt", "linear", *options, "--json", file)
    vpt, linear = json.loads(file.read_text())
    assert vpt["trainable"] is None and not vpt["failed"]
    assert "vpt" in vpt["problem"] and backbone in vpt["problem"]
    assert linear["trainable"] == 2 * 768 + 769 * 174
    assert f"vpt: {vpt['problem']}" in capsys.readouterr().out


def test_noisy_times_are_pointed_out():
    quiet = {"label": "a", "problem": None, "step_spread_percent": 9.0}
    noisy = {"label": "b", "problem": None, "step_spread_percent": 11.0}
    assert remarks([quiet]) == []
    (warning,) = remarks([quiet, noisy])
    assert "WARNING" in warning and "(b)" in warning


def test_a_process_that_dies_or_refuses_is_told_apart():
    with pytest.raises(MemoryError, match="lower the batch size"):
        benchmark.in_fresh_process(os._exit, 9)
    with pytest.raises(ValueError, match="invalid literal"):
        benchmark.in_fresh_process(int, "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "adaptfomer"], "did you mean adaptformer"),
        (["--method", "adaptformer:botleneck=3"], "did you mean method.bottleneck"),
        (["--method", "adaptformer:bottleneck=wide"], "method.bottleneck"),
        (["--method", "adaptformer:wide"], "expected option=value"),
        (["--backbone", "vit_tny"], "did you mean vit_tiny"),
        (["--batch_size", 1], "--batch_size: .* 2 clips or more"),
        (["--steps", 0], "--steps: expected 1 or more"),
        (["--num_frames", 7], "num_frames is 7"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_measured(words, message):
    with pytest.raises(ValueError, match=message):
        cost(*words)


def test_a_table_without_any_figure_is_a_failure(capsys):
    assert cost("--method", "adaptformer:bottleneck=0", *TINY_WORDS, "--no_time") == 1
    assert "expected 1 or more" in capsys.readouterr().out
