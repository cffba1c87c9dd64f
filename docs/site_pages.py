"""Pages of the site that are other files: README, CONTRIBUTING, CHANGELOG and the notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "first_hour.md": "docs/first_hour.ipynb",
}
PAGE_OF = {source: page for page, source in PAGES.items()}
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages; links in files of the root are relative to it, and lead to the site's."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            text = markdown_of(json.loads(text))
        else:
            text = _LINK.sub(lambda found: f"]({_on_site(found[1])}", text)
        files.append(File.generated(config, page, content=text))
    return files


def markdown_of(notebook: dict[str, Any]) -> str:
    """Write the cells of a notebook as Markdown; the notebook itself is offered below its title."""
    cells = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            text = f"```ipython\n{text}\n```"
        cells.append(text)
    title, *rest = cells
    return "\n\n".join([title, "[This page as a notebook](first_hour.ipynb)", *rest]) + "\n"


def _on_site(target: str) -> str:
    """Name the page of a file, given relative to the root, relative to docs/."""
    return PAGE_OF.get(target, target.removeprefix("docs/"))
