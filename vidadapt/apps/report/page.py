"""One HTML file that shows what `look` found: no network, no other files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from vidadapt.apps.report.browse import Shelf
from vidadapt.apps.report.style import SCRIPT, STYLE
from vidadapt.apps.report.views import Clip, View
from vidadapt.files.writing import replaced

BROKEN_SHOWN = 5  # further ones of a class are folded away
INDEX_OPEN = 60  # classes up to which the index is unfolded
# Nothing outside the file is ever loaded, whatever the names in it hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


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
    text = page(shelves, title=title, facts=facts, notes=notes)
    with replaced(path) as partial:
        # File names that are not UTF-8 come with lone surrogates.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def page(
    shelves: Sequence[Shelf], *, title: str, facts: Mapping[str, str], notes: Sequence[str]
) -> str:
    """The page as HTML."""
    views = [view for shelf in shelves for clip in shelf.clips for view in clip.views]
    frames = len(views[0].indices) if views else 8
    per_clip = max([len(clip.views) for shelf in shelves for clip in shelf.clips] or [1])
    film, moving = frames * 60 + 26, min(2, per_clip) * 186 + 16
    sizes = f"--film: {film}px; --moving: {moving}px; --count: {frames}; --turn: {frames * 0.2:g}s"
    most = max([shelf.num_videos for shelf in shelves] or [1])
    faulty = sum(bool(shelf.broken) or not shelf.num_videos for shelf in shelves)
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    bad = " bad" if any(shelf.broken for shelf in shelves) else ""
    only = f'<button id="faults" aria-pressed="false">Only with problems ({faulty})</button>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body style="{sizes}">
<header>
<h1>{escape(title)}</h1>
<dl>{_grouped(listed)}</dl>
{f'<div class="notes{bad}">{said}</div>' if said else ""}
</header>
<main>
<div class="tools" hidden>
<input id="find" type="search" placeholder="Filter classes and files" aria-label="Filter">
<button id="film" aria-pressed="true">Filmstrip</button>
<button id="play" aria-pressed="false">Moving</button>
{only if faulty else ""}
<span class="grey" id="found"></span>
</div>
<details class="index"{" open" if len(shelves) <= INDEX_OPEN else ""}>
<summary>Classes and their numbers of videos</summary>
<ol>{"".join(_entry(shelf, most) for shelf in shelves)}</ol>
</details>
{"".join(_section(shelf) for shelf in shelves)}</main>
<footer>Written by tools/browse.py. Frames are shown as uint8, before normalisation.</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _grouped(listed: str) -> str:
    return listed.replace("<dt>", "<div><dt>").replace("</dd>", "</dd></div>")


def heading(shelf: Shelf) -> str:
    """The class's name; without label names its number.

    >>> heading(Shelf(3, None, 0, (), ())), heading(Shelf(3, "pour", 0, (), ()))
    ('class 3', 'pour')
    """
    return f"class {shelf.label}" if shelf.name is None else shelf.name


def _find(shelf: Shelf) -> str:
    """What the filter box searches, and whether there is a problem."""
    files = [clip.path for clip in shelf.clips] + [path for path, _ in shelf.broken]
    words = escape(" ".join([str(shelf.label), heading(shelf), *files]).lower())
    mark = " data-faulty" if shelf.broken or not shelf.num_videos else ""
    return f'data-find="{words}"{mark}'


def _entry(shelf: Shelf, most: int) -> str:
    share = 100 * shelf.num_videos / max(1, most)
    fault = f'<b class="fault">{len(shelf.broken)} broken</b>' if shelf.broken else ""
    return (
        f'<li {_find(shelf)}><a href="#c{shelf.label}" style="--share: {share:.1f}%">'
        f"<b>{shelf.label}</b><span>{escape(heading(shelf))}</span>{fault}{shelf.num_videos}"
        "</a></li>\n"
    )


def _section(shelf: Shelf) -> str:
    number = f'<span class="id">{shelf.label}</span>' if shelf.name is not None else ""
    said = [f"{shelf.num_videos:,} video{'s' * (shelf.num_videos != 1)}"]
    said += [f"{len(shelf.broken)} broken"] if shelf.broken else []
    body = "".join(map(_card, shelf.clips)) + _broken(shelf)
    if not shelf.num_videos:
        body = '<article class="broken">No video of this class in the list.</article>'
    return (
        f'<section class="class" id="c{shelf.label}" {_find(shelf)}>\n'
        f"<h2>{number} {escape(heading(shelf))} <small>{', '.join(said)}</small></h2>\n"
        f'<div class="cards">{body}</div>\n</section>\n'
    )


def _card(clip: Clip) -> str:
    folder, _, name = clip.path.rpartition("/")
    count = clip.count
    times = [view.times[-1] for view in clip.views if view.times]
    frames = f"{count.num_frames} frame{'s' * (count.num_frames != 1)}"
    facts = [frames, f"{clip.width} x {clip.height}", count.codec]
    facts += [f"read by {count.reader}"] + ([] if times else ["no times known"])
    cut = (
        f'<p class="fault">truncated: the header promises {count.header_frames} frames</p>'
        if clip.truncated
        else ""
    )
    where = f'<span class="grey"> in {escape(folder)}</span>' if folder else ""
    return (
        f'<article data-path="{escape(clip.path)}"><h3>{escape(name)}{where}</h3>\n'
        f'<p class="grey">{escape(" · ".join(facts))}</p>{cut}\n'
        f'<div class="views">{"".join(_figure(view, clip) for view in clip.views)}</div>'
        "</article>\n"
    )


def called(view: View) -> tuple[str, str]:
    """What a view is, in words.

    >>> called(View(0, 1, (), None, b"")), called(View(None, None, (), None, b""))
    (('training', 'epoch 0, copy 1'), ('validation', 'centre'))
    """
    if view.epoch is None:
        return "validation", "centre"
    return "training", f"epoch {view.epoch}" + (f", copy {view.copy}" if view.copy else "")


def _figure(view: View, clip: Clip) -> str:
    kind, which = called(view)
    image = base64.b64encode(view.strip).decode("ascii")
    span = f"frames {view.indices[0]}–{view.indices[-1]}"
    if view.times:
        span += f", {view.times[0]:.2f}–{view.times[-1]:.2f} s"
    times = view.times or [None] * len(view.indices)
    marks = "".join(
        f"<li>{index}" + ("" if time is None else f"<small>{time:.2f} s</small>") + "</li>"
        for index, time in zip(view.indices, times, strict=True)
    )
    alt = escape(f"{kind} view of {clip.path}: {span}")
    return (
        f'<figure data-view="{kind}" data-epoch="{view.epoch}" data-copy="{view.copy}">'
        f"<figcaption><b>{kind}</b> {which} · {span}</figcaption>"
        f'<div class="strip"><img alt="{alt}" src="data:image/webp;base64,{image}"></div>'
        f'<ol class="frames">{marks}</ol></figure>\n'
    )


def _broken(shelf: Shelf) -> str:
    if not shelf.broken:
        return ""
    items = [f"<li><b>{escape(path)}</b> {escape(cause)}</li>" for path, cause in shelf.broken]
    first, rest = items[:BROKEN_SHOWN], items[BROKEN_SHOWN:]
    more = (
        f"<details><summary>{len(rest)} more</summary><ul>{''.join(rest)}</ul></details>"
        if rest
        else ""
    )
    return (
        f'<article class="broken"><h3 class="fault">{len(items)} broken</h3>'
        f"<ul>{''.join(first)}</ul>{more}</article>\n"
    )
