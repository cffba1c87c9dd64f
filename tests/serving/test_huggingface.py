"""From weights of Hugging Face's to a folder that transformers loads again, through every tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinySet, write_adapter
from torch.nn import functional

from vidadapt.config import Config, DataConfig, ModelConfig
from vidadapt.runs import adapters
from vidadapt.serving import export
from vidadapt.training import read_grid

pytestmark = pytest.mark.slow  # whole runs

CLIPS = (6, 3, 4, 32, 32)


@pytest.fixture(scope="module")
def vjepa(tmp_path_factory) -> Path:
    """A folder with vjepa2_tiny of random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="test extra: transformers")
    folder = tmp_path_factory.mktemp("vjepa2_tiny")
    config = transformers.VJEPA2Config(
        **{"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "mlp_ratio": 4},
        **{"frames_per_clip": 4, "crop_size": 32},
        **{"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    )
    torch.manual_seed(0)
    transformers.VJEPA2Model(config).save_pretrained(folder)
    return folder


def trained(
    run_tool: Callable[..., None], tiny_set: TinySet, out: Path, weights: Path, *words: object
) -> Path:
    options = tiny_set.options(model__backbone="vjepa2_tiny", model__weights=weights)
    run_tool("train", *options, "--train.optimizer", "adamw", *words, "--run_dir", out)
    return out


def evaluated(run_tool: Callable[..., None], run: Path, out: Path) -> dict[str, Any]:
    run_tool("evaluate", "--run_dir", run, "--split", "test", "--out", out)
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def logits_of(folder: Path, name: str) -> torch.Tensor:
    import transformers

    model = getattr(transformers, name).from_pretrained(folder).eval()
    clips = torch.randn(CLIPS, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(clips.transpose(1, 2)).logits


def our_logits(run: Path) -> torch.Tensor:
    clips = torch.randn(CLIPS, generator=torch.Generator().manual_seed(2))
    model, _ = adapters.load_adapter(adapters.find_adapter(run, "run"))
    with torch.no_grad():
        return model(clips)


@pytest.mark.parametrize("method", ["adaptformer", "losa"])
def test_v_jepa_trains_and_is_evaluated(method, run_tool, tiny_set, vjepa, tmp_path):
    run = trained(run_tool, tiny_set, tmp_path / "run", vjepa, "--method.name", method)
    found = evaluated(run_tool, run, tmp_path / "out")
    videos = tiny_set.lists["test"].read_text(encoding="utf-8").splitlines()
    assert found["num_videos"] == len(videos)
    losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert losses[-1]["train_loss"] < losses[0]["train_loss"]


def test_a_grid_of_v_jepas_probes(run_tool, tiny_set, vjepa, tmp_path):
    words = ("--method.name", "linear", "--model.head", "vjepa_attentive")
    grid = ("--grid.base_lr", "[0.01,0.1]", "--grid.weight_decay", "[0.01,0.4]")
    root = trained(run_tool, tiny_set, tmp_path / "runs", vjepa, *words, *grid)
    ended = read_grid(root)
    assert ended is not None and len(ended["runs"]) == 4
    found = evaluated(run_tool, root / ended["best"], tmp_path / "out")
    assert 0 <= found["top1"] <= 100


def test_merged_lora_is_a_classifier_of_transformers(run_tool, tiny_set, vjepa, tmp_path):
    words = ("--method.name", "lora", "--model.head", "vjepa_attentive", "--train.base_lr", "0.1")
    run = trained(run_tool, tiny_set, tmp_path / "run", vjepa, *words)
    out = tmp_path / "merged"
    change = export(run, out, "huggingface", torch.float32, None)
    assert change is not None and change < 1e-4
    expected = our_logits(run)
    assert expected.std() > 0.01
    found = logits_of(out, "VJEPA2ForVideoClassification")
    assert (found - expected).abs().max() < 1e-4
    about = json.loads((out / "config.json").read_text(encoding="utf-8"))
    names = (tiny_set.root / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert about["id2label"] == {str(number): name for number, name in enumerate(names)}


def test_a_merged_videomae_is_a_classifier_of_transformers(run_tool, tiny_set, tmp_path):
    pytest.importorskip("transformers", reason="test extra: transformers")
    words = ("--method.name", "arc", "--train.base_lr", "0.1")
    run_tool("train", *tiny_set.options(), *words, "--run_dir", tmp_path / "run")
    out = tmp_path / "merged"
    export(tmp_path / "run", out, "huggingface", torch.float32, None)
    expected = our_logits(tmp_path / "run")
    found = logits_of(out, "VideoMAEForVideoClassification")
    # transformers' fc_norm has torch's eps, 1e-5, and no key of config.json changes it.
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max().item() + 1e-4


@pytest.mark.parametrize("several", [False, True])
def test_transformers_computes_the_loss_of_the_runs_labels(tiny_set, tmp_path, several):
    transformers = pytest.importorskip("transformers", reason="test extra: transformers")
    names = str(tiny_set.root / "labels.txt")
    cfg = Config(
        run_dir="",
        method={"name": "linear"},
        data=DataConfig(label_names=names, num_frames=4, crop_size=32, multi_label=several),
        model=ModelConfig(backbone="vit_tiny", weights=str(tiny_set.weights)),
    )
    write_adapter(tmp_path / "run" / "best", cfg, seed=3)
    export(tmp_path / "run", tmp_path / "out", "huggingface", torch.float32, None)
    model = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    clips = torch.randn(CLIPS, generator=torch.Generator().manual_seed(2))
    given = torch.eye(model.config.num_labels)[:2] if several else torch.tensor([0, 1])
    with torch.no_grad():
        found = model(clips[:2].transpose(1, 2), labels=given)
    losses = {False: functional.cross_entropy, True: functional.binary_cross_entropy_with_logits}
    assert found.loss.item() == pytest.approx(losses[several](found.logits, given).item())


def test_what_transformers_does_not_have_is_refused(run_tool, tiny_set, vjepa, tmp_path):
    run = trained(run_tool, tiny_set, tmp_path / "run", vjepa, "--method.name", "linear")
    with pytest.raises(ValueError, match="vjepa_attentive"):
        export(run, tmp_path / "out", "huggingface", torch.float32, None)
    assert not (tmp_path / "out").exists()
    export(run, tmp_path / "plain", "vidadapt", torch.float32, None)
    assert (tmp_path / "plain").is_file()
