"""Predict labels and probabilities of video files by adapters, with the evaluation's views.

Adapters of one backbone with the same cut of clips share the decoded views, and the backbone's pass
where their methods allow it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidadapt import data
from vidadapt.config import Config, ConfigError, DataConfig
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.clips import view_chunks
from vidadapt.data.sampling import eval_indices
from vidadapt.data.transforms import cut_views
from vidadapt.evaluation.views import fuse
from vidadapt.lists.names import ENDINGS, PATH_COLUMNS, is_video, other_spelling, spelled
from vidadapt.lists.reading import HEADER_FIELDS, ListError, Sample, parse_line
from vidadapt.lists.videos import Videos
from vidadapt.models.precision import NonFinite, autocast, resolved_precision
from vidadapt.runs import adapters
from vidadapt.runs.adapters import SavedAdapter
from vidadapt.runs.differences import NOT_OF_THE_BACKBONE
from vidadapt.serving.bank import AdapterBank
from vidadapt.video.bounds import control_character, leads_outside
from vidadapt.video.times import frame_times

LISTS = (".txt", ".csv", ".tsv", ".lst", ".list")


@dataclass(frozen=True)
class GivenVideo:
    """A video as the user names it, with its label where a list gives one."""

    path: str
    label: int | None = None


@dataclass(frozen=True)
class Guess:
    """One label, with its name and the probability that an adapter gives it."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Shown:
    """The clip of a prediction that a picture shows: the middle one, centre crop.

    Attributes:
        frames: (T, S, S, 3) uint8, as the model saw them.
        times: seconds of each frame; None if the file has none.
    """

    frames: np.ndarray
    times: list[float] | None


@dataclass(frozen=True)
class Prediction:
    """Predictions of all adapters for a video.

    Attributes:
        error: why the video cannot be read; empty: it can.
        guesses: adapter -> its most probable labels, best first.
        views: adapter -> e.g. "4 clips x 3 crops".
        shown: for pictures; None unless asked for.
    """

    video: GivenVideo
    error: str
    guesses: dict[str, list[Guess]]
    views: dict[str, str]
    shown: Shown | None


def find_videos(
    arguments: Sequence[str], root: str | None = None, allow_outside_root: bool = False
) -> list[GivenVideo]:
    """The videos that files, folders (at any depth) and lists name, each once, in their order.

    Args:
        arguments: folders; lists, known by their ending (see `LISTS`), of lines `path label` or
            `path`; anything else is a video.
        root: folder that the paths of lists are relative to; default: the list's own.
        allow_outside_root: the paths of lists may lead out of it, see `bounds.leads_outside`.

    Raises:
        ListError: a list that cannot be read or leads out of its root, or a folder or a list
            without videos.
    """
    found: dict[str, GivenVideo] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = [
                GivenVideo(str(file))
                for file in sorted(path.rglob("*"))
                if is_video(file.name) and file.is_file()
            ]
            if not inside:
                raise ListError(
                    f"{path}: no file in this folder ends in .mp4, .avi, .webm or another ending "
                    f"of videos ({', '.join(sorted(ENDINGS))})"
                )
        elif path.suffix.lower() in LISTS:
            folder = path.parent if root is None else Path(root)
            inside = _listed(path, folder, allow_outside_root)
        else:
            inside = [GivenVideo(argument)]
        for video in inside:
            found.setdefault(os.path.normpath(video.path), video)
    return list(found.values())


def _listed(path: Path, root: Path, allow_outside_root: bool) -> list[GivenVideo]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"cannot read {path}: {error}") from error
    videos: list[GivenVideo] = []
    respelled = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        fields = parse_line(line)
        if not line or (not videos and _is_header(line, root)):
            continue
        if problem := _refused(line, root, allow_outside_root):
            raise ListError(f"{path}:{number}: {problem} (line: {line!r:.300})")
        name, label = line, None
        # A path may end in a number, too: if there is such a file, the line means it.
        if fields is not None and fields[1].isdigit() and not (root / line).is_file():
            name, label = fields[0], int(fields[1])
        if not (root / name).is_file() and (other := other_spelling(root, name)):
            respelled.append(f"{spelled(name)} is {spelled(other)}")
            name = other
        videos.append(GivenVideo(str(root / name), label))
    if respelled:
        print(
            f"{path}: {len(respelled)} of its names are those of files in another Unicode "
            f"spelling: {respelled[0]}",
            file=sys.stderr,
        )
    if not videos:
        raise ListError(f"{path} lists no video; expected lines 'path label' or 'path'")
    return videos


def _is_header(line: str, root: Path) -> bool:
    """Whether the first line of a list names its columns: one of paths, or two."""
    fields = parse_line(line)
    names_label = fields is not None and fields[1].lower() in HEADER_FIELDS
    return names_label or (line.lower() in PATH_COLUMNS and not (root / line).is_file())


def _refused(line: str, root: Path, allow_outside_root: bool) -> str:
    """Why a line of a list must not be used; empty: it may."""
    if character := control_character(line):
        return f"it holds the control character {character}; rename the file"
    if not allow_outside_root and leads_outside(line, root):
        return f"it leads out of the folder {root}; add --allow-outside-root if it is to be trusted"
    return ""


def names_of(folders: Sequence[Path], option: str = "--adapter") -> list[str]:
    """A short name for each adapter's or run's folder: its last parts that tell them apart.

    If all names end in `run`, as in cells of tools/bench_frames.py, that part is dropped.

    Args:
        option: that gives the folders, for the message.

    Raises:
        ConfigError: a folder is given twice.

    >>> names_of([Path("runs/a/best"), Path("runs/b/best"), Path("c")])
    ['a/best', 'b/best', 'c']
    >>> names_of([Path("cells/linear_8f_s0/run"), Path("cells/vpt_8f_s0/run")])
    ['linear_8f_s0', 'vpt_8f_s0']
    """
    parts = [Path(os.path.normpath(Path.cwd() / folder)).parts for folder in folders]
    for number, mine in enumerate(parts):
        if mine in parts[:number]:
            raise ConfigError(f"{option}: {folders[number]} is given twice")
    names = []
    for mine in parts:
        count = 2 if mine[-1] in ("best", "last", "run") else 1
        while count < len(mine) and sum(o[-count:] == mine[-count:] for o in parts) > 1:
            count += 1
        names.append(str(Path(*mine[-count:])))
    if all(name.endswith("/run") for name in names):
        return [name.removesuffix("/run") for name in names]
    return names


@dataclass(frozen=True)
class _Group:
    """Adapters that share decoding and a backbone."""

    config: Config
    plan: DataPlan
    bank: AdapterBank
    views: str
    precision: str


class Predictor:
    """Adapters, ready to predict videos.

    Args:
        folders: name -> adapter folder.
        weights: the backbone's weights; default: see `load_adapter`.
        num_clips, num_crops: views; default: those of each adapter's evaluation.
        device: where to compute.

    Raises:
        ValueError, FileNotFoundError: a damaged adapter, another backbone, missing weights; see
            `AdapterBank`.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        weights: str | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.names = list(folders)
        groups: dict[Any, _Group] = {}
        for name, folder in folders.items():
            adapter = adapters.read_adapter(folder)
            plan = adapters.with_views(adapter.plan, num_clips, num_crops)
            key = _key(adapter, plan)
            if key not in groups:
                config = adapters.with_weights(adapter, weights)
                bank = AdapterBank(
                    config.model,
                    num_frames=plan.sampling.num_frames,
                    crop_size=plan.crop_size,
                    device=self.device,
                )
                views = f"{plan.num_clips} clips x {plan.num_crops} crops"
                precision = resolved_precision(self.device, config.train.precision)
                groups[key] = _Group(config, plan, bank, views, precision)
            groups[key].bank.add(name, folder)
        self._groups = list(groups.values())

    def adapter(self, name: str) -> SavedAdapter:
        """Contents of an adapter's file."""
        return next(g.bank.adapter(name) for g in self._groups if name in g.bank.names)

    def __call__(
        self,
        videos: Sequence[GivenVideo],
        *,
        top: int = 5,
        num_workers: int = 0,
        shown: bool = False,
        progress: bool = True,
        time_limit: float | None = 300.0,
    ) -> Iterator[Prediction]:
        """Predictions, one for each video, in their order; unreadable ones carry their `error`.

        Args:
            top: how many labels.
            num_workers: decoding processes.
            shown: keep a clip of each video for a picture.
            progress: show that of counting frames, the first step.
            time_limit: seconds that counting one video may take; None: no limit.
        """
        samples = [Sample(_absolute(video), 0) for video in videos]
        paths = [sample.path for sample in samples]
        counts = {
            reader: data.count_files(
                paths,
                reader,
                num_workers=num_workers,
                progress=progress,
                time_limit=time_limit,
                limit_key="--time-limit",
            )
            for reader in {group.config.data.reader for group in self._groups}
        }
        lists = [
            VideoList("", Videos.of("/", samples, counts[group.config.data.reader]))
            for group in self._groups
        ]
        return self._each(videos, lists, top, num_workers, shown)

    def _each(
        self,
        videos: Sequence[GivenVideo],
        lists: Sequence[VideoList],
        top: int,
        num_workers: int,
        shown: bool,
    ) -> Iterator[Prediction]:
        options = DataConfig(root="/", num_workers=num_workers)
        loaders = [
            data.eval_loader(options, group.plan, listed)
            for group, listed in zip(self._groups, lists, strict=True)
        ]
        for video, *items in zip(videos, *loaders, strict=True):
            error = next((item["error"] for item in items if item["error"]), "")
            if error:
                error = error.removeprefix(f"{_absolute(video)}: ")  # the video is named beside it
                yield Prediction(video, error, {}, {}, None)
                continue
            guesses: dict[str, list[Guess]] = {}
            views: dict[str, str] = {}
            for group, item in zip(self._groups, items, strict=True):
                guesses |= self._guesses(group, item, video, top)
                views |= dict.fromkeys(group.bank.names, group.views)
            number = lists[0].samples.facts(int(items[0]["index"])).num_frames
            clip = _middle(self._groups[0].plan, items[0], number, video) if shown else None
            ordered = {name: guesses[name] for name in self.names}
            yield Prediction(video, "", ordered, views, clip)

    def _guesses(
        self, group: _Group, item: Mapping[str, Any], video: GivenVideo, top: int
    ) -> dict[str, list[Guess]]:
        """The labels of a group's adapters for one video, from its item of `EvalViews`."""
        parts = []
        for chunk in view_chunks(item, group.config.eval.views_per_forward, self.device):
            with autocast(self.device, group.precision):
                parts.append(group.bank.all_logits(chunk))
        found = {}
        for name in group.bank.names:
            distinct = torch.cat([part[name] for part in parts]).cpu()
            logits = distinct[item["view_of"]].numpy()
            if not np.isfinite(logits).all():
                raise NonFinite(f"{video.path}: the scores of {name} are not finite")
            adapter = group.bank.adapter(name)
            shares = probabilities(logits, adapter.config.eval.fusion)
            best = np.argsort(-shares, kind="stable")[:top]
            found[name] = [Guess(int(k), adapter.label(int(k)), float(shares[k])) for k in best]
        return found


def probabilities(logits: np.ndarray, fusion: Any) -> np.ndarray:
    """Logits (V, K) of a video's views to probabilities (K,), fused as in the evaluation."""
    scores = fuse(logits[None], fusion)[0]
    return scores if fusion == "softmax" else fuse(scores[None, None], "softmax")[0]


def _key(adapter: SavedAdapter, plan: DataPlan) -> Any:
    """A key: equal where decoding and backbone are shared."""
    config = adapter.config
    model = {k: repr(v) for k, v in vars(config.model).items()}
    built = tuple(model[k] for k in sorted(model) if k not in NOT_OF_THE_BACKBONE)
    facts = (config.data.reader, config.train.precision, config.eval.views_per_forward)
    return (adapter.about["model"]["fingerprint"], built, plan.sampling, plan.crop_size, *facts)


def _middle(plan: DataPlan, item: Mapping[str, Any], num_frames: int, video: GivenVideo) -> Shown:
    clip, crop = plan.num_clips // 2, plan.num_crops // 2
    chosen = int(item["view_of"][clip * plan.num_crops + crop])
    [view] = cut_views(item["frames"], item["clips"], item["corners"], [chosen])
    path = _absolute(video)
    indices = eval_indices(plan.sampling, num_frames, plan.num_clips)[clip].tolist()
    return Shown(view.permute(1, 2, 3, 0).numpy(), frame_times(path, indices, num_frames))


def _absolute(video: GivenVideo) -> str:
    return os.path.abspath(video.path)  # noqa: PTH100 (Path.absolute would keep "..")
