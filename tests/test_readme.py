"""What README and docs/ tell a reader to type works: files exist, options parse."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, load_tool, write_adapter
from pages import PAGES, README, blocks, called, commands, text

from benchmarks import claims
from benchmarks.report import day_report, targets_table
from vidadapt import cli, config, methods
from vidadapt.apps.study.matrix import read_matrix
from vidadapt.apps.study.matrix_checks import configurations
from vidadapt.apps.study.results import read_results
from vidadapt.apps.study.table import markdown
from vidadapt.config import command_line, yaml_files
from vidadapt.data.transforms import normalize
from vidadapt.lists import Prepared, write_prepared
from vidadapt.runs import adapters
from vidadapt.serving import exporting

TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
# What a reader follows from one training run to its use, page by page.
JOURNEYS = [
    ["README.md"],
    ["docs/quickstart.md"],
    ["docs/your_data.md", "docs/evaluation.md"],
    ["docs/cluster.md"],
]
# First words of commands of other programs, which no test here can judge.
OTHERS = {"make", "source", "python3", "pip", ".venv/bin/pip", "git", "cd", "tensorboard", "mkdocs"}


def arguments_of(tool: str) -> list[list[str]]:
    """Its arguments everywhere; plug-ins that pages define are run by test_docs_api.py."""
    found = [arguments for name, arguments in map(called, commands(TEXT)) if name == tool]
    return [arguments for arguments in found if "--plugins" not in arguments]


def test_every_file_that_is_named_exists():
    rooms = "tools|configs|tests|docs|vidadapt|benchmarks"
    named = re.findall(rf"(?<![\w/])((?:{rooms})/[\w./-]+)", TEXT)
    assert named
    for name in named:
        assert (ROOT / name.rstrip(".")).exists(), name


def test_training_commands_parse(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert arguments_of("train")
    for arguments in arguments_of("train"):
        cfg, _ = command_line.parse_train(arguments, methods.METHODS)
        assert cfg.data.lists or cfg.data.train_list  # test_readme_data.py runs what makes them
        listed = replace(cfg.data, train_list="train.txt", dev_list="dev.txt")
        config.check(replace(cfg, data=listed), 2)


def test_every_other_command_parses(monkeypatch, tmp_path):
    """Only its options are read; what they name need not be there, but for the run evaluated."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    seen = set()
    for words in commands(TEXT):
        name, arguments = called(words)
        if name in ("", "train") or set(arguments) == {"--help"} or "--plugins" in arguments:
            assert name or words[0] in OTHERS or words[:2] == ["python", "-m"], words
            continue
        for word in arguments:
            if word.endswith(".yaml"):  # a configuration that the page shows
                Path(word).write_text("{}")
        if name == "evaluate" and "--run_dir" in arguments:
            run_dir = Path(arguments[arguments.index("--run_dir") + 1])
            run_dir.mkdir(parents=True, exist_ok=True)
            cfg = config.Config(run_dir=str(run_dir))
            (run_dir / "config.yaml").write_text(yaml_files.dump(cfg))
        if name != "--help":
            load_tool(name).parse(arguments)
            seen.add(name)
    assert seen | {"train"} == set(cli.NAMES)


@pytest.mark.parametrize("pages", JOURNEYS, ids=lambda pages: pages[-1])
def test_what_is_evaluated_predicted_and_exported_was_trained_before(pages):
    """By a command above it, and where it is exported, with a method that merges."""
    trained: dict[str, str] = {}
    used = 0
    for words in commands(text(*pages)):
        tool, arguments = called(words)
        if tool == "train":
            cfg, _ = command_line.parse_train(arguments, methods.METHODS)
            trained[cfg.run_dir] = cfg.method["name"]
        elif tool == "export":
            method = trained[str(Path(arguments[0]).parent)]
            assert method in methods.MERGES or method in exporting.ADD_NOTHING
            used += 1
        elif tool == "predict":
            options = load_tool("predict").parse(arguments)
            if options.keys:  # a classifier that others have trained
                assert "from_file" in options.keys
                continue
            assert all(folder in trained for folder in options.adapter)
            used += 1
        elif tool == "evaluate":
            # Of runs by hand, one a fold; or of a classifier that others have trained.
            if "--folds" in arguments or "from_file" in arguments:
                continue
            option = "--run_dir" if "--run_dir" in arguments else "--from_scores"
            given = arguments[arguments.index(option) + 1]
            assert given in trained or str(Path(given).parents[1]) in trained
            used += 1
    assert used >= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    """The site's own check, `make docs`, does not see the pages as GitHub shows them."""
    found = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert found or page not in (README, ROOT / "docs" / "quickstart.md")
    for target in found:
        file = target.replace("first_hour.md", "first_hour.ipynb")
        assert (page.parent / file).exists(), target


def test_the_readme_is_two_screens():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 100


def test_the_readme_shows_the_figures_of_the_study():
    """Each row of its table is one of docs/demo_methods.md, without some columns."""
    study = {
        cells[1]: [cells[3], cells[4], cells[7]]
        for cells in map(cells_of, text("docs/demo_methods.md").splitlines())
        if len(cells) == 10
    }
    rows = [cells_of(line) for line in text("README.md").splitlines() if line.count("|") == 5]
    shown = {cells[1]: cells[2:5] for cells in rows if cells[1] in study}
    assert shown == study and len(shown) > 10


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def test_benchmark_commands_parse():
    found = [words[2:] for words in commands(TEXT) if words[:2] == ["python", "-m"]]
    assert found and all(words[0].startswith("benchmarks.") for words in found)
    for name, *arguments in found:
        importlib.import_module(name).parse(arguments)


def test_the_table_over_frames_is_that_of_the_published_cells():
    published = sorted((ROOT / "docs" / "frames").rglob("results.jsonl"))
    assert len(published) == 11
    for results in published:
        table = markdown(read_results(results))
        assert results.with_name("table.md").read_text(encoding="utf-8") == table
    study = (ROOT / "docs" / "frames" / "study" / "table.md").read_text(encoding="utf-8")
    assert study.split("\n\n")[1] in text("docs/frames_benchmark.md")


def test_what_became_of_the_claims_follows_from_the_published_cells():
    folder = ROOT / "docs" / "frames"
    found = claims.report(claims.Evidence(folder))
    assert (folder / "claims.md").read_text(encoding="utf-8") == found
    table = found.split("\n\n")[2]
    assert table in (ROOT / "docs" / "frames.md").read_text(encoding="utf-8")


def test_matrix_commands_plan_possible_cells(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    [own] = blocks(text("docs/frames_benchmark.md"), "yaml")
    Path("mine.yaml").write_text(own, encoding="utf-8")
    Path("lists", "mine").mkdir(parents=True)
    lists = {"train": "train.txt", "dev": "dev.txt", "test": "test.txt"}
    write_prepared("lists/mine", Prepared("custom", ".", lists, "labels.txt", {}, {}))
    tool = load_tool("bench_frames")
    assert arguments_of("bench_frames")
    for arguments in arguments_of("bench_frames"):
        asked = tool.parse(arguments)
        assert asked.config is not None
        matrix = read_matrix(asked.config, asked.sweep).chosen(asked.methods, methods.METHODS)
        for name in matrix.variants:
            configurations(matrix.cell(name, 8, 0), [])


def test_the_targets_are_those_of_the_newest_results():
    newest = sorted((ROOT / "benchmarks" / "results").glob("*.json"))[-1]
    day = json.loads(newest.read_text(encoding="utf-8"))
    page = text("docs/speed.md")
    assert targets_table(day["targets"]) in page
    assert newest.with_suffix(".md").name in page
    assert newest.with_suffix(".md").read_text(encoding="utf-8") == day_report(day)


@pytest.mark.slow
def test_the_bank_example_runs_and_a_mixed_batch_equals_separate_passes(tiny_set, tmp_path):
    for name, labels, method in (
        ("actions", "red\ngreen\nblue\n", {"name": "adaptformer", "bottleneck": 4}),
        ("gestures", "up\ndown\n", {"name": "adaptformer", "bottleneck": 7}),
    ):
        (tmp_path / f"{name}.txt").write_text(labels)
        cfg = config.Config(
            run_dir="",
            method=method,
            data=config.DataConfig(
                label_names=str(tmp_path / f"{name}.txt"), num_frames=4, crop_size=32
            ),
            model=config.ModelConfig(backbone="vit_tiny", weights=str(tiny_set.weights)),
            train=config.TrainConfig(precision="fp32"),
        )
        write_adapter(tmp_path / "runs" / name / "best", cfg, seed=len(name))
    for path, name in zip(sorted(tiny_set.root.glob("test*.mp4")), "abc", strict=False):
        shutil.copy(path, tmp_path / f"{name}.mp4")
    page = text("docs/many_tasks.md")
    [example] = blocks(page, "python")
    kept = "{'clips': clips, 'scores': scores, 'both': both, 'plain': plain, 'names': bank.names}"
    save = f"import torch\ntorch.save({kept}, 'found.pt')\n"
    (tmp_path / "example.py").write_text(example + save)
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True, timeout=300)
    [alone] = re.findall(r"`(model = vidadapt.load[^`]+)`, then `(model.predict[^`]+)`", page)
    kept = "{'logits': model(clips), 'recognised': recognised[0].label}"
    (tmp_path / "alone.py").write_text(
        f"import torch\nimport vidadapt\n{alone[0]}\nrecognised = {alone[1]}\n"
        f"clips = torch.load('found.pt')['clips']\ntorch.save({kept}, 'alone.pt')\n"
    )
    shutil.copy(tmp_path / "a.mp4", tmp_path / "clip.mp4")
    subprocess.run([sys.executable, "alone.py"], cwd=tmp_path, check=True, timeout=300)
    found, alone = (torch.load(tmp_path / name) for name in ("found.pt", "alone.pt"))
    assert alone["recognised"] in ("red", "green", "blue")
    torch.testing.assert_close(alone["logits"][0], found["scores"][0], rtol=0, atol=1e-5)
    assert found["names"] == ("actions",)
    assert [len(one) for one in found["scores"]] == [3, 2, 3]
    assert [set(said) for said in found["both"]] == [{"actions", "gestures"}] * 3
    assert found["plain"].shape == (3, 8, 192)
    for number, name in enumerate(("actions", "gestures", "actions")):
        model, _ = adapters.load_adapter(tmp_path / "runs" / name / "best")
        alone = model(normalize(found["clips"][number][None], "imagenet"))[0]
        torch.testing.assert_close(found["scores"][number], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", ["demo", "test", "bench", "docs"])
def test_make_targets_exist(target):
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())
    assert f"make {target}" in TEXT
