"""One HTML file that shows what `look` found: no network, no other files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from vidadapt.apps.report.looking import Shelf
from vidadapt.files import replaced


def write_page(
    shelves: Sequence[Shelf],
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """Write the page, replacing an older one at once.

    Args:
        facts: what was looked at and how, shown at the top.
        notes: what the reader must know first: what is left out, what is broken.
    """
    templates = Environment(
        loader=PackageLoader("vidadapt.apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    clips = [clip for shelf in shelves for clip in shelf.clips]
    text = templates.get_template("browse.html.j2").render(
        shelves=shelves,
        title=title,
        facts=facts,
        notes=notes,
        frames=len(clips[0].views[0].indices) if clips else 8,
        most_views=max([len(clip.views) for clip in clips], default=1),
        largest=max([1, *(shelf.num_videos for shelf in shelves)]),
        num_faulty=sum(shelf.faulty for shelf in shelves),
    )
    with replaced(path) as partial:
        # File names that are not UTF-8 come with lone surrogates.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
