"""HTML files that need no network and no other files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidadapt.apps.report.looking import Shelf
from vidadapt.console import printable
from vidadapt.files import replaced


def write_page(
    shelves: Sequence[Shelf],
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """Write the page of a look at a list, replacing an older one at once.

    Args:
        facts: what was looked at and how, shown at the top.
        notes: what the reader must know first: what is left out, what is broken.
    """
    clips = [clip for shelf in shelves for clip in shelf.clips]
    render_page(
        "browse.html.j2",
        path,
        shelves=shelves,
        title=title,
        facts=facts,
        notes=notes,
        frames=len(clips[0].views[0].indices) if clips else 8,
        most_views=max([len(clip.views) for clip in clips], default=1),
        largest=max([1, *(shelf.num_videos for shelf in shelves)]),
        num_faulty=sum(shelf.faulty for shelf in shelves),
    )


def render_page(template: str, path: Path, **values: Any) -> None:
    """Fill a template of this folder, see `filled`, and write it, replacing an older file at once.

    Raises:
        WriteError: the disk refused the file.
    """
    text = filled(template, **values)
    with replaced(path) as partial:
        # File names that are not UTF-8 come with lone surrogates.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def filled(template: str, **values: Any) -> str:
    """Fill a template of this folder.

    Texts are escaped, and their invisible characters shown, see `console.printable`.
    """
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    """Return the folder's templates, each compiled once: 0.4 s for those of a run's report."""
    templates = Environment(
        loader=PackageLoader("vidadapt.apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    return templates


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
