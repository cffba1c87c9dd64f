"""The command `vidadapt`: its sub-commands, quick and complete help, configurations by name."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from vidadapt import cli
from vidadapt.commands import quick_help
from vidadapt.config import ConfigError, config_file, yaml_files
from vidadapt.config.shipped import PACKAGE, shipped

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(path.stem for path in (PACKAGE / "commands").glob("*.py"))
COMMANDS = [name for name in COMMANDS if name not in ("__init__", "quick_help")]
# Every command's help, made in one process as `vidadapt NAME --help` makes it.
HELP_OF_ALL = """
import contextlib, io, json, sys
from vidadapt import cli
said = {}
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        cli.run(name, ["--help_all" if name in ("train", "evaluate", "browse") else "--help"])
    said[name] = told.getvalue()
heavy = sorted(name for name in ("torch", "av", "timm", "matplotlib") if name in sys.modules)
print(json.dumps([said, heavy]))
"""


def test_every_command_is_listed_and_can_be_called_from_a_checkout():
    assert sorted(cli.NAMES) == COMMANDS
    for name in COMMANDS:
        assert f"  {name} " in cli.overview()
        assert (ROOT / "tools" / f"{name}.py").is_file()


def test_help_needs_no_heavy_library_and_says_the_same_with_them(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, *COMMANDS], capture_output=True, text=True, check=True
    )
    said, heavy = json.loads(done.stdout)
    assert heavy == []
    for name in COMMANDS:
        word = "--help_all" if name in ("train", "evaluate", "browse") else "--help"
        monkeypatch.setattr(sys, "argv", [f"vidadapt {name}", word])
        with pytest.raises(SystemExit):
            import_module(f"vidadapt.commands.{name}").parse([word])
        assert said[name] == capsys.readouterr().out
        assert said[name].startswith(f"usage: vidadapt {name}")


def test_usual_options_first_all_of_them_when_asked(capsys):
    parse = import_module("vidadapt.commands.train").parse
    told = {}
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            parse([word])
        told[word] = capsys.readouterr().out
    assert "--data.lists" in told["--help"] and "--method.bottleneck" in told["--help"]
    assert "--data.count_timeout" not in told["--help"]
    assert "--data.count_timeout" in told["--help-all"]
    assert "[default: 90]" in told["--help"]  # train.epochs
    assert len(told["--help"]) < len(told["--help-all"]) / 2


def test_what_fails_with_stand_ins_is_done_again_with_the_libraries():
    before = dict(sys.modules)
    with quick_help.heavy_libraries_left_out():
        raise TypeError("of a module that computes with torch where it is imported")
    assert {name: sys.modules.get(name) for name in before} == before
    with pytest.raises(SystemExit), quick_help.heavy_libraries_left_out():
        sys.exit(0)


def test_an_unknown_command_is_named_with_the_near_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vidadapt", "evalute"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "evaluate" in capsys.readouterr().err


def test_configurations_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = shipped("configs") / "ssv2" / "adaptformer.yaml"
    for word in ("ssv2/adaptformer", "configs/ssv2/adaptformer.yaml"):
        assert Path(config_file(word)) == expected
    assert yaml_files.read_yaml(expected, "--config")["data"]["dataset"] == "ssv2"
    (tmp_path / "demo").mkdir()  # a folder is no configuration
    assert Path(config_file("demo")).name == "demo.yaml"
    (tmp_path / "demo.yaml").write_text("train: {epochs: 3}")
    assert config_file("demo.yaml") == "demo.yaml"
    with pytest.raises(ConfigError, match="ssv2/adaptformer"):
        config_file("ssv2/adaptfomer")


def test_options_may_be_spelt_with_dashes():
    for words in (["--dev-fraction", "0.3"], ["--dev_fraction", "0.3"]):
        parse = import_module("vidadapt.commands.prepare").parse
        assert parse(["folder", "videos", "lists", *words]).dev_fraction == 0.3


@pytest.mark.parametrize("command", ["browse", "check_videos"])
def test_a_folder_in_place_of_a_list_is_told_its_list_or_how_to_make_one(command, tmp_path):
    main = import_module(f"vidadapt.commands.{command}").main
    with pytest.raises(ValueError, match="prepare folder"):
        main([str(tmp_path)])
    (tmp_path / "train.txt").touch()
    with pytest.raises(ValueError, match=r"train\.txt"):
        main([str(tmp_path)])


def test_a_run_given_to_an_evaluation_without_its_option_is_told_the_option(tmp_path):
    parse = import_module("vidadapt.commands.evaluate").parse
    with pytest.raises(ConfigError, match=f"--run_dir {tmp_path}"):
        parse([str(tmp_path)])
