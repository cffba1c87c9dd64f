"""Published classifiers are scored as their makers' code does, and classes are not mixed up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, launch, load_tool

from vidadapt import data, models
from vidadapt.config import ConfigError, DataConfig, EvalConfig, yaml_files
from vidadapt.data import normalize, view_chunks
from vidadapt.evaluation import load_scores
from vidadapt.files import checksum
from vidadapt.lists import Sample, write_list
from vidadapt.models.vjepa import VJEPA_SIZES
from vidadapt.runs import load_adapter

transformers = pytest.importorskip("transformers")

CLIPS = ROOT.parent / "shared" / "clips"
VIDEOS = ("tfio_small.mp4", "decord_unordered.mov", "torchcodec_h264_10bits.mp4")
NAMES = ("tree", "house", "river", "cloud", "stone", "bird", "fire")
FRAMES, CROP = 4, 32
PROTOCOL = [
    *("--data.sampling", "videomae_ssv2", "--data.num_frames", FRAMES, "--data.crop_size", CROP),
    *("--data.num_workers", 0, "--train.precision", "fp32"),
]


def disturbed(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def labels(names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def videomae(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        **{"image_size": CROP, "num_frames": FRAMES, "hidden_size": 192, "num_hidden_layers": 6},
        **{"num_attention_heads": 3, "intermediate_size": 768},
        **{**labels(), **changes},
    )
    return disturbed(transformers.VideoMAEForVideoClassification(config))


def with_class_token(kind: str) -> Any:
    torch.manual_seed(0)
    config, model = {
        "timesformer": (
            transformers.TimesformerConfig,
            transformers.TimesformerForVideoClassification,
        ),
        "vivit": (transformers.VivitConfig, transformers.VivitForVideoClassification),
    }[kind]
    sizes = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3}
    shape = {"image_size": CROP, "num_frames": FRAMES, "intermediate_size": 768}
    return disturbed(model(config(**sizes, **shape, **labels())))


def vjepa(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        **{"crop_size": CROP, "frames_per_clip": FRAMES, "hidden_size": 48},
        **{"num_hidden_layers": 2, "num_attention_heads": 3, "num_pooler_layers": 2},
        **{"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
        **{**labels(), **changes},
    )
    return disturbed(transformers.VJEPA2ForVideoClassification(config))


@pytest.fixture(autouse=True)
def tiny_vjepa(monkeypatch):
    sizes = {"width": 48, "depth": 2, "num_heads": 3}
    monkeypatch.setitem(VJEPA_SIZES, "vjepa2_large", sizes)


def official(folder: Path, key: str) -> Path:
    """A file as VideoMAE's own code writes it, of the classifier that transformers wrote there."""
    model, _ = models.build(
        "vit_tiny", num_frames=FRAMES, crop_size=CROP, num_classes=len(NAMES), head="linear",
        weights=folder, keep_head=True,
    )  # fmt: skip
    file = folder / "official" / "checkpoint.pth"
    file.parent.mkdir()
    torch.save({key: model.state_dict()}, file)
    return file


def meta_probes(theirs: Any, folder: Path) -> tuple[Path, Path]:
    """The encoder of a classifier alone, and Meta's file of two probes, the second of which is its.

    The class `VJepaHead` has Meta's names, but for these.
    """
    theirs.save_pretrained(folder / "both")
    model, _ = models.build(
        "vjepa2_large", num_frames=FRAMES, crop_size=CROP, keep_head=True,
        num_classes=theirs.config.num_labels, head="vjepa_attentive", head_depth=3, head_heads=3,
        weights=folder / "both",
    )  # fmt: skip
    theirs.vjepa2.save_pretrained(folder / "encoder")
    block = "module.pooler.cross_attention_block"
    probe = {
        f"module.pooler.{name}".replace(f"{block}.q.", f"{block}.xattn.q.")
        .replace(f"{block}.kv.", f"{block}.xattn.kv.")
        .replace("module.pooler.classifier.", "module.linear."): tensor
        for name, tensor in model.head.state_dict().items()
    }
    other = {name: tensor * 0.5 for name, tensor in probe.items()}
    torch.save({"classifiers": [other, probe], "epoch": 20}, folder / "probes.pt")
    return folder / "encoder", folder / "probes.pt"


@pytest.fixture
def real(tmp_path) -> Path:
    """A list of real clips, with labels."""
    if not CLIPS.is_dir():
        pytest.skip("the real clips of ../shared are not here")
    write_list(tmp_path / "test.txt", [Sample(name, k) for k, name in enumerate(VIDEOS)])
    return tmp_path / "test.txt"


def reference_logits(theirs: Any, listed: Path, num_clips: int) -> np.ndarray:
    """(N, V, K): what the makers' module says of the same views."""
    options = DataConfig(
        dataset="custom", root=str(CLIPS), sampling="videomae_ssv2", num_frames=FRAMES,
        crop_size=CROP, num_workers=0,
    )  # fmt: skip
    plan = data.resolve(options, EvalConfig(num_clips=num_clips), NAMES)
    samples = [Sample(name, k) for k, name in enumerate(VIDEOS)]
    videos = data.load_list(options, plan, str(listed), samples, training=False)
    found = []
    for item in data.eval_loader(options, plan, videos):
        chunks = view_chunks(item, 16, torch.device("cpu"))
        clips = torch.cat([normalize(chunk, "imagenet") for chunk in chunks])
        with torch.no_grad():
            found.append(theirs(clips.transpose(1, 2)).logits[item["view_of"]].numpy())
    return np.stack(found)


LAYOUTS: dict[str, tuple[Callable[[], Any], str, str | None]] = {
    "videomae": (videomae, "vit_tiny", None),
    "videomae_first_token": (lambda: videomae(use_mean_pooling=False), "vit_tiny", None),
    "official_deepspeed": (videomae, "vit_tiny", "module"),
    "official_v2": (videomae, "vit_tiny", "model"),
    "vjepa2": (vjepa, "vjepa2_large", None),
    "timesformer": (lambda: with_class_token("timesformer"), "timesformer_tiny", None),
    "vivit": (lambda: with_class_token("vivit"), "vivit_tiny", None),
}
FIRST_TOKEN = ("videomae_first_token", "timesformer", "vivit")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_and_predictions_are_those_of_the_makers_code(
    layout, real, run_tool, capsys, tmp_path
):
    make, backbone, key = LAYOUTS[layout]
    theirs = make()
    weights = tmp_path / "published"
    theirs.save_pretrained(weights)
    if key is not None:
        weights = official(weights, key)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    model = ["--model.weights", weights, "--model.backbone", backbone]
    asked = [*model, "--model.head", "from_file", *PROTOCOL, "--eval.num_clips", 1]
    if key is not None:  # such a file has no names
        asked += ["--data.label_names", tmp_path / "names.txt"]
    out = tmp_path / "out"
    run_tool(
        "evaluate", *asked, "--data.root", CLIPS, "--data.test_list", real, "--out", out
    )  # fmt: skip
    said = capsys.readouterr().out
    scores, about = load_scores(out / "scores.npz")
    expected = reference_logits(theirs, real, 1)
    assert expected.std() > 0.05
    assert np.abs(scores.logits - expected).max() < 2e-3
    order = np.argsort(-expected.mean(1), axis=1)[:, :5]
    assert np.argsort(-scores.logits.mean(1), axis=1)[:, :5].tolist() == order.tolist()
    found = json.loads((out / "metrics.json").read_text())
    assert found["label_names"] == about["label_names"] == list(NAMES)
    assert found["method"] == "published" and found["weights"] == str(weights)
    assert ("first token" in found["head"]) == (layout in FIRST_TOKEN)
    assert ("by number" in found["class_order"]) == (key is not None)
    for fact in (str(weights), found["head"], "videomae_ssv2", "4 frames of 32 pixels", "imagenet"):
        assert fact in said
    assert (out / "report.html").is_file()

    # Predictions, from the same views.
    words = [*asked, "--top", 5, "--json", "--device", "cpu"]
    words = [word for word in words if word not in ("--train.precision", "fp32")]
    files = [CLIPS / name for name in VIDEOS]
    assert load_tool("predict").main([str(word) for word in [*words, *files]]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, row in zip(lines, expected, strict=True):
        [guesses] = line["predictions"].values()
        shares = torch.from_numpy(row).softmax(1).mean(0)
        best = shares.argsort(descending=True)[:5].tolist()
        assert [guess["label"] for guess in guesses["top"]] == best
        assert [guess["name"] for guess in guesses["top"]] == [NAMES[k] for k in best]


@pytest.mark.slow
def test_two_processes_score_as_one_does(tiny_set, tmp_path):
    videomae(**labels(COLOURS)).save_pretrained(tmp_path / "published")
    found = []
    for processes in (1, 2):
        out = tmp_path / f"on_{processes}"
        launch(
            "evaluate", "--model.weights", tmp_path / "published", "--model.backbone", "vit_tiny",
            "--model.head", "from_file", "--data.root", tiny_set.root,
            "--data.test_list", tiny_set.lists["test"], "--out", out, *PROTOCOL,
            processes=processes,
        )  # fmt: skip
        metrics = json.loads((out / "metrics.json").read_text())
        for key in ("seconds", "seconds_per_video"):
            metrics.pop(key)
        found.append((load_scores(out / "scores.npz")[0], metrics))
    (alone, of_one), (both, of_two) = found
    assert of_one == of_two and of_one["num_videos"] == 7
    assert np.array_equal(alone.logits, both.logits) and np.array_equal(alone.labels, both.labels)


@pytest.mark.slow
def test_a_probe_in_a_file_of_its_own(real, run_tool, capsys, tmp_path):
    """Evaluated and predicted with as the classifier that it is part of, on real clips."""
    theirs = vjepa()
    encoder, probes = meta_probes(theirs, tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    asked = [
        *("--model.weights", encoder, "--model.backbone", "vjepa2_large"),
        *("--model.head", "from_file", "--model.head_weights", probes, "--model.head_heads", 3),
        *("--data.label_names", tmp_path / "names.txt", *PROTOCOL, "--eval.num_clips", 1),
    ]
    lists = ["--data.root", CLIPS, "--data.test_list", real]
    out, key = tmp_path / "out", ["--model.head_weights_key", "classifiers.1"]
    run_tool("evaluate", *asked, *key, *lists, "--out", out)
    scores, _ = load_scores(out / "scores.npz")
    expected = reference_logits(theirs, real, 1)
    assert expected.std() > 0.05
    assert np.abs(scores.logits - expected).max() < 2e-3
    found = json.loads((out / "metrics.json").read_text())
    assert "classifiers.1 of 2" in found["head"] and "head_weights_key" in found["head"]
    assert found["weights"] == str(encoder) and found["head_file"] == str(probes)
    assert found["head_sha256"] == checksum(probes) != found["weights_sha256"]
    capsys.readouterr()

    words = [*asked, *key, "--top", 7, "--json", "--device", "cpu", CLIPS / VIDEOS[0]]
    words = [word for word in words if word not in ("--train.precision", "fp32")]
    assert load_tool("predict").main([str(word) for word in words]) == 0
    [line] = capsys.readouterr().out.splitlines()
    [guesses] = json.loads(line)["predictions"].values()
    shares = torch.from_numpy(expected[0]).softmax(1).mean(0)
    for guess in guesses["top"]:
        assert abs(guess["probability"] - shares[guess["label"]].item()) < 1e-3

    # Without a key the first is taken, and that is said.
    run_tool("evaluate", *asked, *lists, "--out", tmp_path / "first")
    first = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert "classifiers.0 of 2" in first["head"] and "head_weights_key" in first["head"]
    logits = load_scores(tmp_path / "first" / "scores.npz")[0].logits
    assert np.abs(logits - expected).max() > 0.01


# --- the order of classes ------------------------------------------------------------------------

COLOURS = ("red", "green", "blue")


@pytest.fixture
def evaluated(tiny_set, run_tool, tmp_path) -> Callable[..., dict[str, Any]]:
    """Evaluate a classifier of these names on the tiny set, whose names are red, green, blue."""

    def run(names: tuple[str, ...] | None, *words: object, **sizes: Any) -> dict[str, Any]:
        weights = tmp_path / "published"
        own = {"num_labels": 3} if names is None else labels(names)
        videomae(**{"id2label": None, "label2id": None, **own, **sizes}).save_pretrained(weights)
        run_tool(
            "evaluate", "--model.weights", weights, "--model.backbone", "vit_tiny",
            "--model.head", "from_file", "--data.root", tiny_set.root,
            "--data.test_list", tiny_set.lists["test"], "--out", tmp_path / "out",
            *PROTOCOL, *words,
        )  # fmt: skip
        logits = load_scores(tmp_path / "out" / "scores.npz")[0].logits
        return {**json.loads((tmp_path / "out" / "metrics.json").read_text()), "logits": logits}

    return run


def test_the_same_classes_in_another_order_are_permuted_only_if_asked(evaluated, tmp_path):
    plain = evaluated(COLOURS)
    assert "agree" in plain["class_order"] and plain["label_names"] == list(COLOURS)
    other = ("blue", "red", "green")
    with pytest.raises(ConfigError, match=r"3 differ .*'blue' in the file.*class_order by_name"):
        evaluated(other)
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    found = evaluated(other, "--model.class_order", "by_name")
    assert found["label_names"] == list(COLOURS) and "by name" in found["class_order"]
    # The weights are the same; the file's class 1 is red now, 2 green, 0 blue.
    assert np.allclose(found["logits"], plain["logits"][..., [1, 2, 0]], atol=1e-6)


def test_other_names_are_refused_unless_only_the_numbers_count(evaluated):
    strange = ("red", "lime", "blue")
    with pytest.raises(ConfigError, match=r"1 class names.*1: 'lime' in the file, 'green' in"):
        evaluated(strange)
    with pytest.raises(ConfigError, match="1 class names"):
        evaluated(strange, "--model.class_order", "by_name")
    found = evaluated(strange, "--model.class_order", "by_number")
    assert found["label_names"] == list(COLOURS) and "by number" in found["class_order"]


def test_a_file_without_names_is_taken_by_number_and_told(evaluated):
    found = evaluated(None)
    assert "no names" in found["class_order"] and found["label_names"] == list(COLOURS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.class_order", "by_name"], "by_name needs names"),
        (["--train.epochs", 3], "--train.epochs: has no effect"),
        (["--method.name", "lora"], "--method.name: has no effect"),
        (["--model.head_depth", 2], r"model\.head_depth: 2, but"),
        (["--model.head_weights", "."], r"for backbones vjepa2_"),
        (["--model.head_weights_key", "classifiers.1"], r"model\.head_weights, which is not set"),
        (["--data.sampling", "null"], r"data\.sampling: is not set"),
        (["--data.dataset", "hmdb51"], "has 3 classes, the data 51|names 3 classes"),
        (["--model.weights", "random"], "takes the classifier of a weights file"),
        (["--model.backbone", "timm/vit_tiny_patch16_224"], "from_file is for backbones"),
        (["--run_dir", "."], "config.yaml does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, said, evaluated):
    with pytest.raises(ValueError, match=said):
        evaluated(None, *words)


def test_another_number_of_classes_is_refused(evaluated):
    with pytest.raises(ConfigError, match="has 7 classes, the data 3"):
        evaluated(NAMES)


def test_files_that_do_not_belong_together_are_refused(evaluated, tmp_path, tiny_set):
    evaluated(COLOURS)
    file = tmp_path / "published" / "config.json"
    content = json.loads(file.read_text())
    for changes, said in (
        ({"id2label": {0: "red"}}, "id2label: 1 names"),
        ({"use_mean_pooling": False}, "use_mean_pooling: False in the file"),
    ):
        file.write_text(json.dumps({**content, **changes}))
        with pytest.raises(ValueError, match=said):
            models.published_head(file.parent, "vit_tiny", None)
    with pytest.raises(ValueError, match="holds no classifier"):
        models.published_head(tiny_set.weights, "vit_tiny", None)


def test_predictions_need_an_adapter_or_a_classifier(capsys):
    for words, said in (
        ([], "--adapter DIR, or --model.weights FILE"),
        (["--model.head", "from_file", "--adapter", "."], "--adapter: is for adapters"),
    ):
        with pytest.raises(SystemExit):
            load_tool("predict").main(["a.mp4", *words])
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"--adapter FOLDER, or --model\.weights"):
        load_tool("predict").main(["a.mp4", "--model.head", "linear"])


# --- training from a published classifier --------------------------------------------------------


@pytest.mark.slow
def test_training_begins_with_the_head_of_the_file(tiny_set, run_tool, tmp_path):
    theirs = videomae(**labels(("blue", "red", "green")))
    theirs.save_pretrained(tmp_path / "published")
    words = tiny_set.options(
        model__weights=tmp_path / "published",
        model__head="from_file",
        model__class_order="by_name",
        train__epochs=1,
        train__base_lr=0.0,
    )
    run = tmp_path / "run"
    run_tool("train", *words, "--run_dir", run, "--method.name", "linear")
    assert yaml_files.read_yaml(run / "config.yaml", "")["model"]["head"] == "linear"
    model, _ = load_adapter(run / "best", weights=tmp_path / "published")
    order = [1, 2, 0]
    assert torch.equal(model.head.weight, theirs.classifier.weight[order])
    assert torch.equal(model.fc_norm.weight, theirs.fc_norm.weight)
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "out")
    assert "published" not in (tmp_path / "out" / "metrics.json").read_text().split('"label')[0]


@pytest.mark.slow
def test_training_begins_with_a_probe_and_its_adapter_needs_no_file_of_it(
    tiny_set, run_tool, tmp_path
):
    theirs = vjepa(**labels(COLOURS))
    encoder, probes = meta_probes(theirs, tmp_path)
    words = tiny_set.options(
        model__backbone="vjepa2_large",
        model__weights=encoder,
        model__head="from_file",
        model__head_weights=probes,
        model__head_weights_key="classifiers.1",
        model__head_heads=3,
        train__epochs=1,
        train__base_lr=0.0,
    )
    run = tmp_path / "run"
    run_tool("train", *words, "--run_dir", run, "--method.name", "linear")
    probes.unlink()
    model, saved = load_adapter(run / "best", weights=encoder)
    assert torch.equal(model.head.classifier.weight, theirs.classifier.weight)
    assert torch.equal(model.head.query_tokens, theirs.pooler.query_tokens)
    assert "probes.pt" not in str(saved.about)
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: videomae(), "has 7 classes, the data 3"),
        (lambda: videomae(**labels(("blue", "red", "green"))), "class_order by_name"),
        (lambda: videomae(use_mean_pooling=False, **labels(COLOURS)), "first token"),
    ],
)
def test_a_head_that_training_cannot_take_is_refused(make, said, tiny_set, run_tool, tmp_path):
    make().save_pretrained(tmp_path / "published")
    words = tiny_set.options(model__weights=tmp_path / "published", model__head="from_file")
    with pytest.raises(ConfigError, match=said):
        run_tool("train", *words, "--run_dir", tmp_path / "run", "--method.name", "linear")
