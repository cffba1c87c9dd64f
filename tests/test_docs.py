"""What docs/ says agrees with the code: options of methods, error messages, examples, the site."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import ROOT
from pages import DOCS, blocks, text

from vidadapt import methods

RUN_ELSEWHERE = {
    **{"many_tasks.md": "test_readme.py", "python_api.md": "test_docs_api.py"},
    **{"extending.md": "test_docs_api.py", "export.md": "serving/test_programs.py"},
}
EXAMPLES = [(page, code) for page in DOCS for code in blocks(page.read_text("utf-8"), "python")]


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_page_on_methods_has_every_option_with_its_default(name):
    section = text("docs/methods.md").split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    said = re.findall(r"(?m)^\| `(\w+)` \| `([^`]+)` \|", section)
    options = methods.default_options(name)
    assert said == [(option, str(default)) for option, default in options.items()]


def test_every_method_that_merges_is_said_to_merge():
    page = text("docs/methods.md")
    for name in methods.METHODS:
        section = page.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
        assert ("Merges." in section) == (name in methods.MERGES), name


def texts_of_the_source() -> list[str]:
    """Every string of the package; what an f-string fills in is a null character."""
    found = []
    for path in (ROOT / "vidadapt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_of_the_page_on_troubleshooting_is_one_of_the_source():
    messages = re.findall(r"(?m)^### `(.*)`$", text("docs/troubleshooting.md"))
    assert len(messages) == len(set(messages)) >= 25
    source = texts_of_the_source()
    for message in messages:
        parts = map(re.escape, message.split("..."))
        wanted = re.compile(".*?".join(parts), re.DOTALL)
        assert any(wanted.search(one) for one in source), message


def test_pages_have_examples():
    assert {page.name for page, _ in EXAMPLES} > set(RUN_ELSEWHERE)


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=lambda part: getattr(part, "name", ""))
def test_examples_run(page, code, tmp_path, monkeypatch):
    if page.name not in RUN_ELSEWHERE:
        monkeypatch.chdir(tmp_path)
        exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_other_machines_for_nothing(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(DOCS)
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert loaded
        for tag in loaded:
            assert 'rel="canonical"' in tag or "://" not in tag, f"{page}: {tag}"


@pytest.mark.slow
def test_the_notebook_runs_and_reaches_more_than_chance(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "docs" / "first_hour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is too long for sockets in it
        monkeypatch.setenv("TMPDIR", folder)
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=tmp_path)
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    results = [one.data for one in outputs if one.output_type == "execute_result"]
    assert sum("image/png" in one for one in results) == 3
    [top1] = re.findall(r"'top1': ([\d.]+)", str(results))
    assert float(top1) > 100 / 12
