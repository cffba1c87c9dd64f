"""Check who may import whom: a row for each room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vidadapt"

MAY_IMPORT = {  # from the bottom
    "console": set(),
    "processes": set(),
    "files": {"console"},
    "config": {"console"},
    "video": {"console", "files"},
    "hub": {"console", "files"},
    "weights": {"console", "files", "hub"},
    "models": {"console", "files", "hub"},
    "methods": {"console", "models"},
    "distributed": {"files", "processes"},
    "lists": {"config", "console", "files", "processes", "video"},
    "data": {"config", "console", "files", "lists", "processes", "video"},
    "runs": {
        *("config", "console", "data", "distributed", "files", "hub", "methods", "models", "video"),
    },
    "launching": {"console", "distributed", "files", "models", "processes", "runs", "video"},
    "evaluation": {"console", "data", "distributed", "files", "lists", "models", "video"},
    "features": {
        *("config", "console", "data", "distributed", "evaluation", "files", "methods", "models"),
        *("runs", "video"),
    },
    "training": {
        *("config", "console", "data", "distributed", "evaluation", "features", "files"),
        *("launching", "lists", "methods", "models", "runs", "video"),
    },
    "serving": {
        *("config", "console", "data", "distributed", "evaluation", "features", "files", "lists"),
        *("hub", "methods", "models", "processes", "runs", "video", "weights"),
    },
}
LIBRARY = set(MAY_IMPORT)
MAY_IMPORT["api"] = LIBRARY | {"apps/prepare", "apps/report"}
MAY_IMPORT |= {
    "apps/report": LIBRARY,
    "apps/synthetic": LIBRARY,
    "apps/prepare": LIBRARY | {"apps/report", "apps/synthetic"},
    "apps/study": LIBRARY | {"apps/report"},
}
ROOMS = set(MAY_IMPORT)
MAY_IMPORT |= {
    "commands": ROOMS,
    "": {  # the command line, and the names of the API
        *("cli", "commands", "config", "console"),
        *("api", "data", "evaluation", "methods", "models", "serving"),
    },
}
ONLY_IN = {
    "decord": {"video/seekers.py"},
    "torchcodec": {"video/seekers.py"},
    "torch.distributed": {
        *(
            "distributed/world.py",
            "distributed/gradients.py",
            "distributed/sums.py",
            "launching/start.py",
        ),
        "training/sharding.py",
    },
    "jsonargparse": {"config/parsing.py"},
    "yaml": {"config/yaml_files.py"},
    "wandb": {"training/trackers.py"},
    "mlflow": {"training/trackers.py"},
}


def room_of(parts: Sequence[str]) -> str:
    """The room of a module, by its path below the package; of an application with its own name."""
    return "/".join(parts[: 2 if parts[0] == "apps" else 1])


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_root_holds_rooms_alone():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}
    assert {room_of(path.relative_to(PACKAGE).parts[:-1] or ("",)) for path in FILES} == {
        *("apps", *MAY_IMPORT)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = room_of(path.relative_to(PACKAGE).parts[:-1] or ("",))
    for name in imported(path):
        if name.startswith("vidadapt."):
            other = room_of(name.split(".")[1:])
            assert other == room or other in MAY_IMPORT[room], f"{room} imports {name}"
        assert not name.startswith("tools")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_with_one_owner(path):
    relative = str(path.relative_to(PACKAGE))
    for name in imported(path):
        for library, owners in ONLY_IN.items():
            if name == library or name.startswith(library + "."):
                assert relative in owners, f"{relative} imports {name}"


def test_no_tool_has_the_name_of_a_module_that_others_import():
    """torchrun puts tools/ on the path, so that `import <name>` would find the tool."""
    dependencies = {
        *("torch", "torchvision", "timm", "einops", "safetensors", "numpy", "av", "decord"),
        *("jsonargparse", "torchmetrics", "rich", "tqdm", "tensorboard", "matplotlib", "yaml"),
        *("transformers", "pytest", "vidadapt", "setuptools", "peft", "torchcodec"),
    }
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert tools
    assert not tools & (set(sys.stdlib_module_names) | dependencies)
