"""Plug-ins: imported where the user names them, and nowhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import load_tool

import vidadapt
from vidadapt import methods
from vidadapt.config import ConfigError, command_line, import_plugins, parse_train
from vidadapt.runs import adapters
from vidadapt.serving import trained

METHOD = """
from pathlib import Path
from vidadapt.methods import METHODS
METHODS[{name!r}] = METHODS["linear"]
Path(__file__).with_suffix(".imported").touch()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A working directory for modules, forgotten at the end as are their methods."""
    before = dict(methods.METHODS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    methods.METHODS.clear()
    methods.METHODS.update(before)
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, module: str, name: str | None = None) -> Path:
    """A module that adds a method; returns the file that its import leaves."""
    file = folder / f"{module}.py"
    file.write_text(METHOD.format(name=name or module))
    return file.with_suffix(".imported")


def test_files_and_options_name_modules_which_the_configuration_keeps(folder):
    for module in ("pi_first", "pi_second", "pi_third"):
        write(folder, module)
    (folder / "a.yaml").write_text("plugins: [pi_first]\nmethod: {name: pi_second}\n")
    words = ["--config=a.yaml", "--run_dir", "r", "--plugins", "pi_second,pi_third"]
    cfg, _ = parse_train(words, methods.METHODS)
    assert cfg.plugins == ["pi_first", "pi_second", "pi_third"]
    assert cfg.method["name"] == "pi_second"
    assert parse_train(["--run_dir", "r"], methods.METHODS)[0].plugins == []


@pytest.mark.parametrize(
    ("text", "named", "words"),
    [
        (None, "pi_nowhere", ["pi_nowhere", "working directory"]),
        ("\nimport pi_not_installed", "pi_lacks", ["pi_lacks", "pi_not_installed"]),
        ("\n\nraise KeyError('of mine')", "pi_raises", ["pi_raises.py:3", "of mine"]),
        ("", "pi_file.py", ["pi_file.py", "give pi_file"]),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_place(folder, text, named, words):
    if text is not None:
        (folder / f"{named.removesuffix('.py')}.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_plugins(["--plugins", named])
    for word in words:
        assert word in str(caught.value)


def test_an_installed_module_is_not_hidden_by_a_file_of_the_working_directory(folder):
    (folder / "colorsys.py").write_text("raise SystemExit(9)")
    assert import_plugins(["--plugins", "colorsys"]) == ["colorsys"]
    assert not (sys.modules["colorsys"].__file__ or "").startswith(str(folder))


@pytest.fixture
def run(folder, tiny_set, run_tool) -> Path:
    """A run trained with a plug-in that is then forgotten, as in a new process."""
    mark = write(folder, "pi_mine")
    words = tiny_set.options(train__epochs=1, method__name="pi_mine")
    run_tool("train", *words, "--run_dir", "run", "--plugins", "pi_mine")
    assert mark.exists()
    mark.unlink()
    del sys.modules["pi_mine"], methods.METHODS["pi_mine"]
    return folder / "run"


def test_a_run_and_its_adapter_name_plugins_that_nobody_imports_for_them(run, run_tool):
    assert yaml.safe_load((run / "config.yaml").read_text())["plugins"] == ["pi_mine"]
    assert json.loads((run / "best" / "adapter.json").read_text())["plugins"] == ["pi_mine"]
    views = ["--eval.num_clips", "1", "--eval.num_crops", "1"]
    with pytest.raises(ConfigError, match=r"config\.yaml.*--plugins pi_mine"):
        run_tool("evaluate", "--run_dir", run, *views)
    for asked in (
        lambda: adapters.read_adapter(run / "best"),
        lambda: vidadapt.load(run),
        lambda: trained.asked(["--adapter", str(run / "best")]),
        lambda: load_tool("predict").main(["x.mp4", "--adapter", str(run)]),
        lambda: load_tool("export").main([str(run / "best"), "out.pth"]),
    ):
        with pytest.raises(ConfigError, match=r"adapter\.json.*--plugins pi_mine"):
            asked()
    assert not run.with_name("pi_mine.imported").exists()
    run_tool("evaluate", "--run_dir", run, *views, "--plugins", "pi_mine")
    assert run.with_name("pi_mine.imported").exists()
    assert vidadapt.load(run).adapter.config.plugins == ["pi_mine"]
    cfg, _, adapter = trained.asked(["--adapter", str(run / "best"), "--plugins", "pi_mine"])
    assert cfg is not None and adapter is not None and cfg.plugins == ["pi_mine"]


def test_a_run_goes_on_with_the_same_plugins_alone(run, tiny_set, run_tool):
    words = tiny_set.options(train__epochs=1, method__name="linear")
    write(run.parent, "pi_other")
    with pytest.raises(ConfigError, match="plugins"):
        run_tool("train", *words, "--run_dir", run, "--resume", "--plugins", "pi_other")
    words = tiny_set.options(train__epochs=1, method__name="pi_mine")
    run_tool("train", *words, "--run_dir", run, "--resume", "--plugins", "pi_mine")


@pytest.mark.parametrize("plugins", ["one", [1], {"a": "b"}])
def test_a_list_of_plugins_that_is_none_is_refused(run, plugins):
    write(run.parent, "one")
    file = run / "best" / "adapter.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "plugins": plugins}))
    (run / "best" / "checksums.json").unlink()
    with pytest.raises(ConfigError, match=r"adapter\.json: plugins"):
        adapters.read_adapter(run / "best")
    (run / "config.yaml").write_text(yaml.safe_dump({"plugins": plugins}))
    with pytest.raises(ConfigError, match=r"config\.yaml: plugins"):
        command_line.parse_evaluate(["--run_dir", str(run)], methods.METHODS)
    with pytest.raises(ConfigError, match=r"config\.yaml: plugins"):
        import_plugins(["--config", str(run / "config.yaml")])
    assert not (run.parent / "one.imported").exists()
