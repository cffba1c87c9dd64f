"""An adapter that is pushed to the hub comes back from it, and nothing else comes or goes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import yaml
from conftest import load_tool, write_adapter
from stand_in_hub import StandIn

import vidadapt
from vidadapt.commands import push as push_command
from vidadapt.config import Config, ConfigError, DataConfig, EvalConfig, ModelConfig, TrainConfig
from vidadapt.hub import HubError
from vidadapt.runs import RunError, load_adapter
from vidadapt.serving import AdapterBank, push, write_published
from vidadapt.serving.pushing import PUBLISHED_FILES

NAME = "me/actions"
FETCHED = ["adapter.json", "checksums.json", "adapter.safetensors"]


def make_run(tiny_set, folder: Path, seed: int = 1, **model) -> Path:
    """A run folder with a trained adapter, its lists, and files that are nobody else's business."""
    cfg = Config(
        run_dir=str(folder),
        method={"name": "adaptformer", "bottleneck": 4},
        data=DataConfig(
            root=str(tiny_set.root),
            test_list=str(tiny_set.lists["test"]),
            label_names=str(tiny_set.root / "labels.txt"),
            sampling="uniform8",
            num_frames=4,
            crop_size=32,
            num_workers=0,
        ),
        model=ModelConfig(**{"backbone": "vit_tiny", "weights": str(tiny_set.weights), **model}),
        train=TrainConfig(precision="fp32"),
        eval=EvalConfig(num_clips=2, num_crops=1),
    )
    metrics = {"epoch": 3, "dev_top1": 50.0}
    write_adapter(folder / "best", cfg, seed=seed, spread=0.5, metrics=metrics)
    (folder / "log.jsonl").write_text('{"secret": 1}\n')
    (folder / "best" / "trainer.txt").write_text("secret")
    return folder


@pytest.fixture
def run(tiny_set, tmp_path) -> Path:
    return make_run(tiny_set, tmp_path / "run")


def clips() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def logits(adapter: str | Path, weights: Path) -> torch.Tensor:
    return load_adapter(adapter, weights=weights)[0](clips())


def test_what_was_pushed_scores_as_the_run_does(tiny_set, run, hub, run_tool, tmp_path):
    run_tool("evaluate", "--run_dir", run)
    done = push(run, NAME)
    assert hub.files(NAME).keys() == set(PUBLISHED_FILES) and not done.left_out
    assert not hub.fetched
    out = tmp_path / "again"
    run_tool(
        *("evaluate", "--adapter", f"hub:{NAME}", "--out", out, "--model.weights"),
        *(tiny_set.weights, "--data.root", tiny_set.root),
        *("--data.test_list", tiny_set.lists["test"]),
    )
    before, after = (np.load(f / "scores.npz") for f in (run / "eval_test_best_2x1", out))
    assert before["logits"].size and (before["logits"] == after["logits"]).all()
    measured = json.loads((out / "metrics.json").read_text())
    first = json.loads((run / "eval_test_best_2x1" / "metrics.json").read_text())
    assert measured["run_dir"] == done.reference == f"hub:{NAME}@{measured['checkpoint']}"
    for key in ("top1", "loss", "manifest", "adapter_sha256", "per_class"):
        assert measured[key] == first[key]
    assert hub.fetched == FETCHED
    protocol = json.loads(hub.files(NAME)["protocol.json"])
    [figure] = protocol["figures"]
    for key in ("top1", "views", "fusion", "manifest", "num_videos"):
        assert figure[key] == first[key]
    assert protocol["clip"]["num_frames"] == 4


def test_results_of_an_adapter_of_the_hub_are_not_written_into_its_cache(
    tiny_set, run, hub, run_tool, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sha = push(run, NAME).reference.partition("@")[2]
    given = ("--data.root", tiny_set.root, "--data.test_list", tiny_set.lists["test"])
    weights = ("--model.weights", tiny_set.weights)
    run_tool("evaluate", "--adapter", f"hub:{NAME}", *weights, *given)
    assert (tmp_path / "me--actions" / f"eval_test_{sha}_2x1" / "metrics.json").is_file()
    snapshots = next((tmp_path / "hub_cache").glob("*/snapshots"))
    assert [path.name for path in snapshots.iterdir()] == [sha]


def test_it_is_an_adapter_wherever_one_is_named_and_a_revision_can_be_chosen(
    tiny_set, run, hub, tmp_path, capsys
):
    old = push(run, NAME).reference
    other = make_run(tiny_set, tmp_path / "other", seed=2)
    new = push(other, NAME).reference
    expected = {folder: logits(folder / "best", tiny_set.weights) for folder in (run, other)}
    assert not torch.equal(expected[run], expected[other])
    for reference, folder in ((old, run), (new, other), (f"hub:{NAME}", other)):
        assert torch.equal(logits(reference, tiny_set.weights), expected[folder])
    bank = AdapterBank.for_adapter(old, weights=tiny_set.weights)
    bank.add("old", old)
    torch.testing.assert_close(bank.logits(clips(), "old"), expected[run], rtol=0, atol=1e-5)
    capsys.readouterr()
    video = next(tiny_set.root.glob("test*.mp4"))
    load_tool("predict").main(
        [str(video), "--adapter", old, "--adapter", new, "--weights", str(tiny_set.weights)]
    )
    said = capsys.readouterr().out
    assert old.rpartition("/")[2] in said and new.rpartition("/")[2] in said


def test_a_merged_model_is_exported_from_the_hub(tiny_set, hub, tmp_path):
    cfg_run = tmp_path / "lora"
    labels = str(tiny_set.root / "labels.txt")
    cfg = Config(
        run_dir="",
        method={"name": "lora"},
        data=DataConfig(label_names=labels, num_frames=4, crop_size=32),
        model=ModelConfig(backbone="vit_tiny", weights="demo"),
    )
    write_adapter(cfg_run / "last", cfg, seed=3)
    push(cfg_run, NAME)
    for source in (f"hub:{NAME}", cfg_run / "last"):
        load_tool("export").main([str(source), str(tmp_path / f"{Path(source).name}.safetensors")])
    exported = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("actions", "last")]
    assert exported[0] == exported[1]


def test_nothing_leaves_that_is_of_this_machine(tiny_set, run, hub):
    push(run, NAME)
    for name, content in hub.files(NAME).items():
        assert str(tiny_set.root).encode() not in content, name
        assert b"secret" not in content, name
    about = json.loads(hub.files(NAME)["adapter.json"])
    assert about["model"]["weights"] == "backbone.safetensors"
    assert hub.files(NAME)["labels.txt"] == b"red\ngreen\nblue\n"


@pytest.mark.parametrize("weights", ["hub", "hub:attacker/weights", "/etc/passwd"])
def test_nothing_is_fetched_or_opened_that_only_the_repository_names(
    tiny_set, run, hub, tmp_path, weights
):
    write_published(run, tmp_path / "card", NAME)
    files = {path.name: path.read_bytes() for path in (tmp_path / "card").iterdir()}
    about = json.loads(files["adapter.json"])
    about["model"]["weights"] = weights
    files["adapter.json"] = json.dumps(about).encode()
    files |= {"config.yaml": f"model: {{weights: {weights}}}".encode(), "code.py": b"1/0"}
    files["checksums.json"] = sums(files)
    hub.put(NAME, files)
    hub.put("attacker/weights", {"model.safetensors": tiny_set.weights.read_bytes()})
    with pytest.raises(ConfigError, match=f"--weights {weights}"):
        load_adapter(f"hub:{NAME}")
    assert hub.fetched == FETCHED
    assert not any("attacker" in line for line in hub.requests)


def sums(files: dict[str, bytes]) -> bytes:
    names = ("adapter.safetensors", "adapter.json")
    return json.dumps({n: hashlib.sha256(files[n]).hexdigest() for n in names}).encode()


def test_files_that_do_not_belong_together_are_refused(tiny_set, run, hub, tmp_path):
    write_published(run, tmp_path / "card", NAME)
    files = {path.name: path.read_bytes() for path in (tmp_path / "card").iterdir()}
    hub.put("me/edited", {**files, "adapter.json": files["adapter.json"] + b" "})
    hub.put("me/bare", {k: v for k, v in files.items() if k != "checksums.json"})
    hub.put("me/model", {"config.json": b"{}", "model.safetensors": b""})
    for name, said in (
        ("edited", r"adapter\.json is damaged.*fetch it again"),
        ("bare", r"has no checksums\.json"),
        ("model", r"has no adapter\.json.*--model\.weights hub:me/model"),
    ):
        with pytest.raises(RunError, match=f"hub:me/{name}: .*{said}"):
            load_adapter(f"hub:me/{name}", weights=tiny_set.weights)
    hub.put("me/good", files)
    hub.damage = True
    with pytest.raises(RunError, match=r"adapter\.safetensors is damaged"):
        load_adapter("hub:me/good", weights=tiny_set.weights)


@pytest.mark.parametrize("name", ["hub:me", "hub:me/", "hub:me/a/b", "hub:me/a@", "hub:", "hub:/a"])
def test_a_malformed_reference_says_what_was_expected(name, hub):
    with pytest.raises(RunError, match="expected hub:OWNER/NAME"):
        load_adapter(name)
    assert not hub.requests


def test_what_cannot_be_fetched_is_one_line_that_names_it(tiny_set, run, hub, monkeypatch):
    push(run, NAME)
    hub.put("me/private", hub.files(NAME), private=True)
    monkeypatch.delenv("HF_TOKEN")
    for name in ("me/none", "me/private", f"{NAME}@none"):
        with pytest.raises(HubError, match=name.partition("@")[0]) as caught:
            load_adapter(f"hub:{name}")
        assert "\n" not in str(caught.value)
    load_adapter(f"hub:{NAME}", weights=tiny_set.weights)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    load_adapter(f"hub:{NAME}", weights=tiny_set.weights)  # it is in the cache
    assert len(hub.requests) == asked
    with pytest.raises(HubError, match="me/none") as caught:
        load_adapter("hub:me/none")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_pushed_is_one_line_that_names_it(run, hub, monkeypatch):
    hub.put("me/taken", {"model.safetensors": b"", "README.md": b""})
    hub.put("me/public", {"README.md": b"", ".gitattributes": b""})
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    refused(run, NAME, HubError)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    refused(run, "others/actions", HubError)
    refused(run, "me/taken", HubError)
    refused(run, "me/public", HubError, private=True)
    refused(run, "actions", RunError)
    refused(run, "me/not a name", HubError)
    asked = len(hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(run, NAME, HubError)
    monkeypatch.delenv("HF_TOKEN")
    refused(run, NAME, HubError)
    assert len(hub.requests) == asked and NAME not in hub.repositories
    assert hub.files("me/taken").keys() == {"model.safetensors", "README.md"}
    assert hub.files("me/public").keys() == {"README.md", ".gitattributes"}


def refused(run: Path, name: str, kind: type[ValueError], **options: bool) -> None:
    with pytest.raises(kind, match=name) as caught:
        push(run, name, **options)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_one_line(run, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(run, NAME, HubError)


def test_a_second_push_replaces_its_own_files_alone(tiny_set, run, hub, tmp_path):
    push(run, NAME, private=True)
    assert hub.repositories[NAME].private
    hub.put(NAME, {**hub.files(NAME), "demo.mp4": b"theirs"})
    unnamed = make_run(tiny_set, tmp_path / "unnamed", seed=2)
    about = json.loads((unnamed / "best" / "adapter.json").read_text())
    (unnamed / "best" / "adapter.json").write_text(json.dumps({**about, "label_names": None}))
    (unnamed / "best" / "checksums.json").unlink()
    push(unnamed, NAME)
    assert hub.files(NAME).keys() == {*PUBLISHED_FILES, "demo.mp4"} - {"labels.txt"}
    assert hub.repositories[NAME].private


def test_a_folder_is_written_without_the_hub(run, hub, tmp_path, capsys):
    folder = tmp_path / "look"
    assert push_command.main([str(run), NAME, "--to", str(folder)]) == 0
    assert not hub.requests
    assert push_command.main([str(run), NAME, "--private"]) == 0
    said = capsys.readouterr().out
    assert f"hub:{NAME}@" in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == hub.files(NAME)
    with pytest.raises(RunError, match="--to"):
        push_command.main([str(run), NAME, "--to", str(folder)])


def test_the_card_tells_what_it_is_and_only_figures_of_this_checkpoint(
    tiny_set, run, hub, run_tool, tmp_path
):
    run_tool("evaluate", "--run_dir", run)
    figures = json.loads((run / "eval_test_best_2x1" / "metrics.json").read_text())
    done = write_published(run, tmp_path / "card", NAME, licence="mit")
    text = (tmp_path / "card" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["license"], about["library_name"]) == ("mit", "vidadapt")
    [result] = about["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(figures["top1"], 2)
    for told in (
        *("2 clips x 1 crops", "softmax", figures["manifest"][:12], "0" * 64, "`adaptformer`"),
        *(f"hub:{NAME}", "--weights backbone.safetensors", f"{figures['top1']:.2f}", "test.txt"),
        "licence",
    ):
        assert told in body, told
    make_run(tiny_set, run, seed=2)  # trained further: the results are of what it was before
    done = write_published(run, tmp_path / "new", NAME)
    [line] = done.left_out
    assert "eval_test_best_2x1" in line
    body = (tmp_path / "new" / "README.md").read_text()
    assert "test.txt |" not in body and "model-index" not in body


@pytest.mark.parametrize(
    ("weights", "backbone", "told"),
    [
        ("hub:MCG-NJU/videomae-base", "vit_base", "CC-BY-NC-4.0"),
        ("hub", "timm/vit_base_patch14_dinov2.lvd142m", "Apache-2.0"),
        ("mine.pth", "vit_base", "not known"),
        ("demo", "vit_tiny", "ships"),
    ],
)
def test_the_card_names_the_licence_of_the_backbone(
    tiny_set, run, tmp_path, weights, backbone, told
):
    path = run / "best" / "adapter.json"
    about = json.loads(path.read_text())
    about["model"] |= {"weights": weights, "backbone": backbone}
    path.write_text(json.dumps(about))
    (run / "best" / "checksums.json").unlink()
    write_published(run, tmp_path / "card", NAME)
    text = (tmp_path / "card" / "README.md").read_text()
    licence = text.split("## Backbone")[1]
    assert told in licence and weights in text
    assert ("--weights" in text) == (weights != "demo")


def test_one_checkpoint_of_a_run_can_be_chosen(tiny_set, run, hub, tmp_path):
    make_run(tiny_set, tmp_path / "later", seed=7)
    (tmp_path / "later" / "best").rename(run / "last")
    push(run, NAME, checkpoint="last")
    sent = hub.files(NAME)["adapter.safetensors"]
    assert sent == (run / "last" / "adapter.safetensors").read_bytes()
    push(run, NAME)
    sent = hub.files(NAME)["adapter.safetensors"]
    assert sent == (run / "best" / "adapter.safetensors").read_bytes()
    with pytest.raises(RunError, match="on the hub already"):
        push(f"hub:{NAME}", "me/copy")


def test_the_stand_in_is_what_is_asked(hub: StandIn):
    """The tests above reach no other server."""
    assert huggingface_hub.HfApi().endpoint == hub.address
    assert huggingface_hub.hf_hub_url("a/b", "c").startswith(hub.address)


def test_a_model_in_python_is_pushed_and_loaded_again(tiny_set, run, hub):
    model = vidadapt.load(run, device="cpu")
    done = model.push_to_hub(NAME)
    again = vidadapt.load(done.reference, backbone=tiny_set.weights, device="cpu")
    assert again.labels == model.labels
    assert torch.equal(again(clips()), model(clips()))
    with pytest.raises(HubError, match="me/none"):
        vidadapt.load("hub:me/none")
