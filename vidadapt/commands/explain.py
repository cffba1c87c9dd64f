"""Explain: where in a video, and in which frames, the evidence for a model's answer is."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from vidadapt import data, launching
from vidadapt.apps.report import write_explanation_page
from vidadapt.config import ConfigError, import_plugins, plugins, spelt
from vidadapt.console import did_you_mean, duration, printable, track
from vidadapt.runs import check_writable
from vidadapt.serving import Model, explain, find_videos, load, predict_command
from vidadapt.serving.given import add_videos, list_unreadable, require_own_names
from vidadapt.video import ReadError

EPILOG = """examples:
  vidadapt explain clip.mp4 --adapter runs/mine --out why/
  vidadapt explain clip.mp4 --adapter runs/mine --label "pushing something" --out why/

Writes OUT/NAME.html for each video: the frames of its middle clip, moving, with what speaks for the
label and against it over them; how much less probable the label is without each frame; the frames
without which the answer is another; and the answer for the whole video. OUT/NAME.json holds the
numbers. Each cell of --grid is blurred in turn and the model asked again: frames x grid x grid
forward passes, for any method and backbone. Videos that cannot be read are listed at the end, and
the exit status is 1 then.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    parser = argparse.ArgumentParser(
        prog="vidadapt explain",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_videos(parser)
    parser.add_argument(
        "--adapter", required=True, metavar="DIR",
        help="adapter folder, a run's folder, its URL in a store, or hub:OWNER/NAME[@REVISION]",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--label", metavar="NAME", help="to explain; default: the best one")
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's; default: those of the adapter's run"
    )
    parser.add_argument(
        "--grid", type=int, default=7, metavar="N",
        help="cells in a row and in a column of a frame; default %(default)s",
    )  # fmt: skip
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument(plugins.OPTION, metavar="MODULES", help=plugins.HELP)
    words = spelt(sys.argv[1:] if argv is None else argv)
    import_plugins(words)
    options = parser.parse_args(words)
    options.device = predict_command.usable_device(parser, options.device)
    return options


def main(argv: list[str] | None = None) -> int:
    """Explain as the arguments say; the exit status: 1 if some video could not be read."""
    options, began = parse(argv), time.monotonic()
    where = options.root, options.allow_outside_root
    several = predict_command.are_multi_label([options.adapter])
    videos = find_videos(options.videos, *where, multi_label=several)
    require_own_names(videos, "--out")
    check_writable("--out", options.out)
    model = load(options.adapter, options.weights, device=options.device)
    label, plan = _label(model, options.label), model.adapter.plan
    side = plan.crop_size
    if not 1 <= options.grid <= side:
        raise ConfigError(f"--grid: expected 1 to {side}, the frames' pixels, got {options.grid}")
    unreadable: list[str] = []
    for video in track(videos, total=len(videos), label="explain", unit="videos"):
        try:
            clip = data.centre_clips([video.path], plan, model.adapter.config.data.reader)[0]
        except ReadError as error:
            unreadable.append(str(error))
            continue
        [whole] = model.predict(video.path, num_workers=0)
        if whole.error:
            unreadable.append(f"{video.path}: {whole.error}")
            continue
        found = explain(model, clip, label, options.grid)
        page = write_explanation_page(found, whole, clip, model.labels, video.name, options.out)
        frames = ", ".join(map(str, found.needed))
        needs = f"; {model.labels[found.best]} needs frames {frames}" if frames else ""
        share = f"{100 * found.probability:.1f} %"
        print(printable(f"{video.path}: {model.labels[found.label]} {share}{needs}"))
        print(printable(f"  {page}"), flush=True)
    read = len(videos) - len(unreadable)
    print(f"{read} of {len(videos)} videos in {duration(time.monotonic() - began)}")
    list_unreadable(unreadable)
    return 1 if unreadable else 0


def _label(model: Model, name: str | None) -> int | None:
    """Return the number of a label.

    Raises:
        ConfigError: there is none of this name.
    """
    if name is None:
        return None
    if name not in model.labels:
        hint = did_you_mean(name, model.labels) or f"there are {', '.join(model.labels[:10])}"
        raise ConfigError(f"--label: the adapter has no label {printable(name)!r}; {hint}")
    return model.labels.index(name)


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
