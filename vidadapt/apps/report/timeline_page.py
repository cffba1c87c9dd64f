"""The page of a film: a player, what is seen when, and jumps to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from vidadapt.apps.report.page import render_page
from vidadapt.console import duration
from vidadapt.files import is_url

if TYPE_CHECKING:  # else every user of the room would import the models, too
    from vidadapt.serving.film_command import Seen

# Of the labels in the order of the time that they are seen; the rest share the last one.
COLOURS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#009988"),
    *("#882255", "#999933", "#bbbbbb"),
)


def write_timeline_page(seen: Seen, path: Path) -> None:
    """Write the page of a film's timeline; it plays the film's own file, which must stay there.

    Raises:
        WriteError: the disk refused it.
    """
    from vidadapt.serving.timeline import clock

    film = seen.video.path
    source = film if is_url(film) else quote(os.fsencode(os.path.relpath(film, path.parent)))
    time_of: dict[int, float] = {}
    for run in seen.runs:
        time_of[run.label] = time_of.get(run.label, 0.0) + float(run.end - run.start)
    ordered = sorted(time_of, key=lambda label: -time_of[label])
    colours = {label: COLOURS[min(at, len(COLOURS) - 1)] for at, label in enumerate(ordered)}
    render_page(
        "timeline.html.j2",
        path,
        title=seen.video.name,
        source=source,
        problem=seen.problem,
        seconds=float(seen.film.seconds),
        offset=seen.film.offset,
        colours=colours,
        facts={
            "film": duration(float(seen.film.seconds)),
            "frames": f"{seen.film.num_frames:,}",
            "windows": f"{seen.windows:,}",
            "runs": f"{len(seen.runs):,}",
            "labels seen": str(len(ordered)),
            "most of the time": seen.names[ordered[0]] if ordered else "",
        },
        runs=[
            {
                "start": float(run.start),
                "end": float(run.end),
                "label": run.label,
                "name": seen.names[run.label],
                "probability": run.probability,
                "clock": clock(run.start)[:-2],
            }
            for run in sorted(seen.runs, key=lambda run: run.start)
        ],
    )
