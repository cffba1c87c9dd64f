"""A page and a picture of a list as a training run would see it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt import data
from vidadapt.apps.report.browse_sheet import write_browse_sheet
from vidadapt.apps.report.looking import Found, look
from vidadapt.apps.report.page import write_page
from vidadapt.config import BrowseOptions, Config, DataConfig
from vidadapt.console import duration, printable_lines
from vidadapt.data import DATASETS, DataPlan
from vidadapt.files import beside, folder_of, is_there
from vidadapt.lists import (
    LABELS_FILE,
    PREPARED_FILE,
    check_label_names,
    read_list,
    read_prepared,
    with_lists,
)

MANY = 100_000  # more classes than any list has: a label beyond is a slip


def browse_list(cfg: Config, options: BrowseOptions) -> int:
    """Write the page and the picture, and say what they show.

    Returns:
        The exit status: 1 if some video cannot be read.
    """
    began = time.monotonic()
    list_path = options.list_path
    settings = _settings(cfg.data, list_path)
    data.require_one_label(settings, "vidadapt browse")
    plan = _plan(cfg, settings, list_path)
    samples = read_list(list_path, settings.root, plan.num_classes, settings.allow_outside_root)
    out = Path(options.out or Path("browse") / Path(list_path).stem)
    out.mkdir(parents=True, exist_ok=True)
    found = look(settings, plan, samples, options, cfg.train.seed)
    facts = _facts(cfg, settings, plan, options, len(samples))
    notes = _notes(cfg, settings, plan, found, len(samples))
    page = out / "index.html"
    write_page(found.shelves, page, title=list_path, facts=facts, notes=notes)
    sheets = write_browse_sheet(found.shelves, out / "sheet.png")
    _say(found, notes, [page, *sheets], time.monotonic() - began)
    return 1 if found.num_broken else 0


def _settings(settings: DataConfig, list_path: str) -> DataConfig:
    """The data options, completed by what is beside the list: root, label names, data set."""
    settings = with_lists(settings)
    folder, names = folder_of(list_path), beside(list_path, LABELS_FILE)
    if is_there(beside(list_path, PREPARED_FILE)):
        if settings.dataset == DataConfig.dataset:
            settings = replace(settings, dataset=read_prepared(folder).dataset)
        own_lists: dict[str, Any] = dict.fromkeys(("train_list", "dev_list", "test_list"))
        prepared = with_lists(replace(settings, lists=folder, label_names=None, **own_lists))
        return replace(prepared, label_names=settings.label_names or prepared.label_names)
    if settings.label_names is None and is_there(names):
        return replace(settings, label_names=names)
    return settings


def _plan(cfg: Config, settings: DataConfig, list_path: str) -> DataPlan:
    """The plan of training. Without names a custom list has as many classes as its labels need."""
    dataset = DATASETS.get(settings.dataset)
    if settings.label_names is not None or dataset is None or dataset.num_classes is not None:
        plan = data.resolve(settings, cfg.eval)
        check_label_names(list_path, plan.label_names)
        return plan
    samples = read_list(list_path, settings.root, MANY, settings.allow_outside_root)
    numbers = range(int(samples.labels.max()) + 1)
    plan = data.resolve(settings, cfg.eval, label_names=[str(number) for number in numbers])
    return replace(plan, label_names=None)


def _facts(
    cfg: Config, settings: DataConfig, plan: DataPlan, options: BrowseOptions, num_videos: int
) -> dict[str, str]:
    """Names and values for the top of the page."""
    sampling = plan.sampling
    how = {
        "dense": f"{sampling.stride} apart (dense)",
        "uniform": "one of each segment (uniform)",
        "segments": f"in {sampling.segments} runs {sampling.stride} apart (segments)",
    }
    frames = f"{sampling.num_frames} frames, {how[sampling.policy]}"
    if sampling.fps is not None:
        frames += f", of {sampling.fps:g} a second"
    return {
        "videos": f"{num_videos:,} in {plan.num_classes} classes",
        "data.root": settings.root,
        "data.dataset": settings.dataset,
        "data.label_names": settings.label_names or "none",
        "clip": frames,
        "crop": f"{plan.crop_size} x {plan.crop_size}",
        **{f"data.{name}": str(value) for name, value in plan.framing.settings().items()},
        **{f"data.{name}": str(value).lower() for name, value in vars(plan.augmentation).items()},
        "copies of a video in an epoch": str(settings.repeated_augmentation),
        "train.seed": str(cfg.train.seed),
        "shown": f"up to {options.clips_per_class} random videos of a class, "
        + ("epoch 0" if options.epochs == 1 else f"epochs 0 to {options.epochs - 1}"),
    }


def _notes(
    cfg: Config, settings: DataConfig, plan: DataPlan, found: Found, num_videos: int
) -> list[str]:
    """Notes to read before looking: what is broken, empty or not shown."""
    notes = []
    shown, broken = len(found.shelves), found.num_broken - found.num_quarantined
    if found.num_broken == num_videos:
        notes.append(f"No video can be read: is data.root, {settings.root}, the right folder?")
    elif broken:
        notes.append(
            f"{broken:,} of {num_videos:,} videos are missing or cannot be read: each is named at "
            "its class. Training stops at missing files, and at more than "
            f"{settings.max_unreadable} unreadable videos (data.max_unreadable), unless "
            "data.quarantine names them."
        )
    if found.num_quarantined:
        notes.append(
            f"{found.num_quarantined:,} of {num_videos:,} videos are quarantined by "
            f"{settings.quarantine}: training leaves them out, evaluation counts them as wrong."
        )
    if empty := [str(shelf.label) for shelf in found.shelves if not shelf.num_videos]:
        more = f" and {len(empty) - 20} more" if len(empty) > 20 else ""
        notes.append(
            f"Classes without a video in this list ({len(empty)}): {', '.join(empty[:20])}{more}."
        )
    if shown < plan.num_classes:
        left_out = f" {found.elsewhere:,} of the broken videos are in the classes left out."
        notes.append(
            f"Shown are the first {shown} of {plan.num_classes} classes (--classes)."
            + (left_out if found.elsewhere else "")
        )
    if found.unchecked:
        notes.append(
            f"{found.unchecked:,} of {num_videos:,} videos have not been decoded yet, so there may "
            "be more broken ones: vidadapt check_videos finds them."
        )
    if cfg.train.mixup or cfg.train.cutmix:
        notes.append("Mixup and cutmix mix whole batches later: they are not shown.")
    return notes


def _say(found: Found, notes: Sequence[str], files: Sequence[Path], seconds: float) -> None:
    """Print the summary."""
    clips = [clip for shelf in found.shelves for clip in shelf.clips]
    views = sum(len(clip.views) for clip in clips)
    print(
        f"{len(found.shelves)} classes, {len(clips)} videos in {views} views, "
        f"{found.num_broken} broken, in {duration(seconds)}"
    )
    for note in notes:
        print(printable_lines(f"  {note}"))
    for file in files:
        print(f"  {file}: {file.stat().st_size / 1e6:.1f} MB")
