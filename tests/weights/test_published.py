"""The table of published weights agrees with timm and with its page; files come whole or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT

from vidadapt.apps.report import weights_page
from vidadapt.commands import weights as command
from vidadapt.config import DataConfig, ModelConfig
from vidadapt.data import NORMALIZATIONS
from vidadapt.hub import HubError
from vidadapt.models import BACKBONES, build
from vidadapt.weights import PUBLISHED

OF_TIMM = {name: e for name, e in PUBLISHED.items() if (e.hub or "").startswith("timm/")}
CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize("name", OF_TIMM)
def test_what_is_said_of_timms_models_is_what_timm_says(name):
    entry = OF_TIMM[name]
    config = timm.get_pretrained_cfg(entry.backbone.removeprefix("timm/"))
    assert config.hf_hub_id == entry.hub
    assert config.license.replace("-license", " licence").lower() == entry.licence.lower()
    mean, std = NORMALIZATIONS[entry.options.get("data.normalization", "imagenet")]
    assert config.mean == pytest.approx(tuple(mean)) and config.std == pytest.approx(tuple(std))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_entry_can_be_used_as_it_says(name):
    entry = PUBLISHED[name]
    assert (entry.hub is None) == (entry.address is not None)
    assert entry.sources and entry.maker and entry.data
    sections = {"model": ModelConfig(), "data": DataConfig()}
    known = {f"{section}.{key}" for section, held in sections.items() for key in vars(held)}
    assert entry.settings.keys() <= known
    if entry.backbone.startswith("timm/"):
        assert timm.is_model(entry.backbone.removeprefix("timm/"))
    else:
        assert entry.backbone in BACKBONES


@pytest.mark.parametrize(
    "name",
    [
        "videomae-small-k400",
        "videomae-base",
        "vjepa2-huge",
        "vjepa2.1-gigantic",
        "timesformer-k400",
        "vivit-k400",
        "internvideo2-1b",
        "vit_small_patch14_dinov2.lvd142m",
    ],
)
def test_parameters_are_those_of_the_backbone(name):
    entry = PUBLISHED[name]
    with torch.device("meta"):
        if entry.backbone.startswith("timm/"):
            model = timm.create_model(entry.backbone.removeprefix("timm/"), num_classes=0)
        else:
            frames = int(entry.options.get("data.num_frames", 16))
            model, _ = build(
                entry.backbone, num_frames=frames, crop_size=224, num_classes=1, head="linear"
            )
    count = sum(p.numel() for k, p in model.named_parameters() if not k.startswith("head."))
    assert entry.millions == pytest.approx(count / 1e6, abs=0.06)


def test_the_page_is_made_from_the_table():
    text = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    assert text == weights_page.page(PUBLISHED), (
        "run: python -m vidadapt.apps.report.weights_page docs/weights.md"
    )


def test_all_are_listed_and_each_is_shown(capsys):
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    for name, entry in PUBLISHED.items():
        assert f"\n{name} " in listed
        assert command.main([name]) == 0
        shown = capsys.readouterr().out
        assert entry.place in shown and f"--model.weights {entry.weights}" in shown
        assert all(fact in shown for fact in entry.unverified)


def test_an_unknown_name_leads_to_near_ones(capsys):
    with pytest.raises(ValueError, match="videomae-base"):
        command.main(["videomae-bsae"])
    with pytest.raises(SystemExit):
        command.main(["--out", "x"])


def test_help_and_lists_need_no_torch():
    code = (
        "import sys; from vidadapt.commands import push, weights; weights.main([]); "
        "weights.main(['videomae-base']); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'vidadapt.weights'" in done.stderr
    for slow in ("torch", "timm", "pandas", "huggingface_hub"):
        assert f"'{slow}'" not in done.stderr


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("videomae-base", "model.safetensors"),
        ("videomae-base", "pytorch_model.bin"),
        ("videomaev2-base-distilled", "distill/vit_b_k710_dl_from_giant.pth"),
    ],
)
def test_a_file_is_fetched_whole(name, file, hub, tmp_path, capsys):
    hub.put(PUBLISHED[name].hub, {file: CONTENT, "README.md": b""})
    out = tmp_path / "weights.bin"
    assert command.main([name, "--out", str(out)]) == 0
    assert out.read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} <= {"weights.bin", "hub_cache"}
    assert hub.fetched == [file.rpartition("/")[2]]
    with pytest.raises(ValueError, match=r"weights\.bin exists"):
        command.main([name, "--out", str(out)])
    with pytest.raises(ValueError, match="folder"):
        command.main([name, "--out", str(tmp_path / "none" / "x")])


def test_a_damaged_file_does_not_come_to_stand(hub, tmp_path):
    entry = PUBLISHED["videomae-base"]
    hub.put(entry.hub, {"model.safetensors": CONTENT})
    hub.damage = True
    with pytest.raises(ValueError, match=r"videomae-base: model\.safetensors came damaged"):
        command.main(["videomae-base", "--out", str(tmp_path / "x")])
    assert not [path for path in tmp_path.iterdir() if path.name != "hub_cache"]
    hub.damage = False
    command.main(["videomae-base", "--out", str(tmp_path / "x")])
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_file_that_was_replaced_is_named_before_it_is_fetched(hub, tmp_path):
    entry = PUBLISHED["videomaev2-giant"]
    assert len(entry.sha256) == 64
    hub.put(entry.hub, {"model.safetensors": CONTENT})
    with pytest.raises(ValueError, match="was replaced"):
        command.main(["videomaev2-giant", "--out", str(tmp_path / "x")])
    assert not hub.fetched and not (tmp_path / "x").exists()


def test_a_file_that_is_only_on_a_page_is_named_with_its_address(hub, tmp_path):
    entry = PUBLISHED["videomae-huge-k400"]
    with pytest.raises(ValueError) as caught:
        command.main(["videomae-huge-k400", "--out", str(tmp_path / "x")])
    assert entry.place in str(caught.value)
    assert not hub.requests


def test_what_the_hub_lacks_is_one_line(hub, tmp_path):
    out = str(tmp_path / "x")
    with pytest.raises(HubError, match="MCG-NJU/videomae-base") as caught:
        command.main(["videomae-base", "--out", out])
    assert "\n" not in str(caught.value)
    hub.put("MCG-NJU/videomae-base", {"README.md": b""})
    with pytest.raises(HubError, match=r"has none of model\.safetensors"):
        command.main(["videomae-base", "--out", out])
    assert not Path(out).exists()
