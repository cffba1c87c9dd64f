"""What the README tells a reader to type works: files exist, options parse."""

from __future__ import annotations

import re
import shlex

import pytest
from conftest import ROOT

from vidadapt import command_line, config, methods

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The words of every command line in the README's bash blocks."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL):
        joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^ +", "", block))
        for line in joined.splitlines():
            found += [shlex.split(part, comments=True) for part in line.split("&&")]
    return [words for words in found if words]


def arguments_of(tool: str) -> list[list[str]]:
    return [
        words[words.index(f"tools/{tool}.py") + 1 :]
        for words in commands()
        if f"tools/{tool}.py" in words
    ]


def test_every_file_that_is_named_exists():
    named = re.findall(r"`?((?:tools|configs|tests|docs|vidadapt)/[\w./-]+)`?", TEXT)
    assert named
    for name in named:
        assert (ROOT / name.rstrip(".")).exists(), name


def test_training_commands_parse(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert arguments_of("train")
    for arguments in arguments_of("train"):
        cfg, _ = command_line.parse_train(arguments, methods.METHODS)
        config.check(cfg, 2)


def test_evaluation_commands_parse(monkeypatch, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    cfg = config.Config(run_dir="runs/mine")
    (tmp_path / "runs" / "mine" / "config.yaml").write_text(command_line.dump(cfg))
    monkeypatch.chdir(tmp_path)
    assert arguments_of("evaluate")
    for arguments in arguments_of("evaluate"):
        command_line.parse_evaluate(arguments, methods.METHODS)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_exist(target):
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())
    assert f"make {target}" in TEXT
