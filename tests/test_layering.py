"""Who may import whom: the picture in the README, held."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vidadapt"

MAY_IMPORT = {
    "config": set(),
    "command_line": {"config", "naming", "typed", "yaml_files"},
    "yaml_files": {"config", "naming"},
    "progress": set(),
    "processes": set(),
    "naming": set(),
    "metrics": set(),
    "optim": set(),
    "precision": {"models"},
    "profiling": {"files"},
    "distributed": {"files", "processes"},
    "launching": {"data", "distributed", "files", "naming", "precision", "processes", "runs"},
    "files": {"naming"},
    "runs": {"files"},
    "checkpoints": {"files", "naming", "runs"},
    "resuming": {"checkpoints", "distributed", "methods", "optim", "runs", "sharding"},
    "saving": {"checkpoints", "files", "resuming", "sharding"},
    "continuing": {
        *("checkpoints", "config", "data", "differences", "distributed", "resuming", "runs"),
        "yaml_files",
    },
    "sharding": {"distributed", "methods", "models"},
    "models": {"files", "naming"},
    "methods": {"models", "naming"},
    "data": {"config", "files", "processes", "progress", "naming"},
    "evaluate": {
        *("data", "distributed", "files", "metrics", "models", "precision", "progress"),
        *("score_parts", "score_tables"),
    },
    "score_parts": {"distributed", "files"},
    "score_tables": {"naming"},
    "epoch_log": {"progress", "resuming", "runs"},
    "train": {
        *("config", "data", "distributed", "files", "methods", "models", "optim"),
        *("checkpoints", "epoch_log", "launching", "precision", "resuming", "saving", "sharding"),
        "steps",
    },
    "steps": {
        *("config", "data", "distributed", "models", "optim", "precision", "profiling", "progress"),
        *("resuming", "sharding"),
    },
    "recompute": {"methods", "models"},
    "features": {"methods", "models", "routing"},
    "feature_store": set(),
    "cache": {
        *("config", "data", "differences", "distributed", "feature_store", "features"),
        *("precision", "progress"),
    },
    "cached_training": {"cache", "data", "evaluate", "feature_store", "precision"},
    "benchmark": {
        *("distributed", "models", "methods", "optim", "precision", "processes", "recompute"),
    },
    "matmul": {"benchmark", "models"},
    "assemble": {"config", "data", "methods", "models", "runs"},
    "differences": {"config", "data", "methods", "yaml_files"},
    "adapters": {
        "assemble",
        "checkpoints",
        "config",
        "data",
        "differences",
        "methods",
        "models",
        "naming",
        "runs",
        "typed",
        "yaml_files",
    },
    "typed": set(),
    "trained": {
        *("adapters", "checkpoints", "command_line", "config", "data", "distributed", "evaluate"),
        *("files", "methods", "models", "precision", "runs", "score_parts"),
    },
    "temporal": {"evaluate"},
    "temporal_report": {"files", "markdown", "temporal"},
    "routing": set(),
    "replay": {"methods", "models", "routing"},
    "predict": {"adapters", "bank", "config", "data", "differences", "evaluate", "precision"},
    "embedding": {"data", "distributed", "evaluate", "models", "naming"},
    "embedding_plot": {"files"},
    "lettering": set(),
    "markdown": set(),
    "contact_sheet": {"files", "lettering", "predict"},
    "browse": {"config", "data", "files", "lettering", "progress"},
    "prepare": {"data", "files", "naming", "progress"},
    "matrix": {
        *("assemble", "benchmark", "config", "data", "differences", "distributed", "epoch_log"),
        *("files", "launching"),
        *("markdown", "matmul", "methods", "models", "naming", "optim", "precision", "progress"),
        *("recompute", "runs", "steps", "yaml_files"),
    },
    "bank": {
        *("adapters", "assemble", "config", "data", "differences", "methods", "models", "replay"),
        "routing",
    },
}
ONLY_IN = {
    "decord": {"data/seekers.py"},
    "torchcodec": {"data/seekers.py"},
    "torch.distributed": {"distributed.py", "launching/__init__.py", "sharding.py"},
    "jsonargparse": {"command_line.py"},
    "yaml": {"yaml_files.py"},
}


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    for name in imported(path):
        if name.startswith("vidadapt."):
            other = name.split(".")[1]
            assert other == layer or other in MAY_IMPORT[layer], f"{layer} imports {name}"
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
