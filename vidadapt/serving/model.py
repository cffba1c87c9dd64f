"""A trained run or adapter in one object, for Python and notebooks.

    model = load("runs/mine")
    model.labels                            # ('juggle', 'wave', ...)
    model.predict(["a.mp4", "b.mp4"])       # what it sees in videos
    model.features("a.mp4")                 # (1, D)
    model.evaluate("lists/mine")["top1"]    # per cent

Several adapters on one backbone in memory: `bank.AdapterBank`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jinja2 import Template
from torch import Tensor

from vidadapt.config import ConfigError, DataConfig
from vidadapt.console import printable
from vidadapt.data import DataPlan, VideoList
from vidadapt.distributed import World
from vidadapt.evaluation import measure
from vidadapt.models import VideoModel, autocast, cast_frozen, resolved_precision
from vidadapt.runs import SavedAdapter, adapters, checkpoints
from vidadapt.serving import trained
from vidadapt.serving.card import figures_of_training
from vidadapt.serving.given import find_videos, list_with_labels
from vidadapt.serving.head_inputs import head_inputs, score_with_features
from vidadapt.serving.predict import Guess, counted, most_probable, workers_for
from vidadapt.serving.pushing import Pushed, push
from vidadapt.serving.recognition import Recognition
from vidadapt.serving.trained import Loaded, Trained
from vidadapt.video import ReadError

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Clips = Tensor | np.ndarray

IN_A_NOTEBOOK = Template(
    """<table>
<caption>{{ title }}</caption>
{% for name, value in facts.items() %}<tr><th style="text-align: left">{{ name }}</th>
<td style="text-align: left">{{ value }}</td></tr>
{% endfor %}</table>""",
    autoescape=True,
)
MOST_NAMED = 10  # classes


@dataclass(frozen=True, repr=False, eq=False)
class Model:
    """A backbone with a trained adapter, from `load`.

    Clips are uint8 RGB, as frames of a video are: (B, T, H, W, 3), or (B, 3, T, H, W) as the
    loaders of this package give them, on any device. T, H and W are those of the training; the
    model normalises them. From a video file it cuts them itself.

    Attributes:
        adapter: content of the adapter's files.
        module: the network: uint8 clips (B, 3, T, S, S) to logits (B, K). In eval mode, frozen.
        device: where it computes.
        precision: that it computes in.
    """

    adapter: SavedAdapter
    module: VideoModel
    device: torch.device
    precision: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the K classes, in label order; `class 0` and so on where they have none."""
        return self.adapter.labels

    def predict(
        self,
        videos: Paths | Clips,
        *,
        top: int = 5,
        num_clips: int | None = None,
        num_crops: int | None = None,
        num_workers: int | None = None,
    ) -> list[Recognition]:
        """Recognise videos, or clips.

        Args:
            videos: files, folders (at any depth) and lists, one or several; or a batch of clips.
            top: how many labels to give.
            num_clips, num_crops: views of a video; default: those of the adapter's evaluation.
            num_workers: decoding processes; default: none for up to 7 videos, else at most 4.

        Returns:
            One for each video or clip, in order. A video that cannot be read has its `error`.

        Raises:
            ValueError: clips of another shape or type, or a list or folder without videos.
        """
        if top < 1:
            raise ValueError(f"top: expected 1 or more, got {top}")
        if isinstance(videos, Tensor | np.ndarray):
            logits = self(videos).cpu().numpy()
            return [Recognition("", self._most_probable(row[None], top)) for row in logits]
        plan = adapters.with_views(self.adapter.plan, num_clips, num_crops)
        listed, names, workers = self._counted(videos, plan, num_workers)
        errors = [listed.samples.facts(place).error for place in range(len(names))]
        found = dict[int, np.ndarray]()
        if readable := [place for place, error in enumerate(errors) if not error]:
            part = replace(listed, samples=listed.samples.at(np.array(readable)))
            loaded = self._in_no_list(plan, part, workers)
            scores = trained.score(loaded, self._alone, label="predict")
            for place, path, logits in zip(readable, scores.paths, scores.logits, strict=True):
                errors[place] = scores.errors.get(path, "")
                found[place] = logits
        for place, name in enumerate(names):  # it is named beside its error
            errors[place] = errors[place].removeprefix(f"{os.path.abspath(name)}: ")  # noqa: PTH100
        return [
            Recognition(name, () if error else self._most_probable(found[place], top), error)
            for place, (name, error) in enumerate(zip(names, errors, strict=True))
        ]

    @torch.no_grad()
    def __call__(self, clips: Clips) -> Tensor:
        """Clips, see the class, to logits (B, K) float32 on `device`.

        Raises:
            ValueError: clips of another shape or type.
        """
        ready = self._ready(clips)
        parts = ready.split(self.adapter.config.eval.views_per_forward)
        with autocast(self.device, self.precision):
            return torch.cat([self.module(part.to(self.device)).float() for part in parts])

    def features(self, videos: Paths | Clips, *, num_workers: int | None = None) -> Tensor:
        """Features that the last layer classifies; of a video those of its middle clip and crop.

        Args:
            videos, num_workers: as in `predict`.

        Returns:
            (N, D) float32 on the CPU, a row for each video or clip, in order.

        Raises:
            ReadError: a video that cannot be read, with the cause.
            ValueError: as in `predict`.
        """
        if isinstance(videos, Tensor | np.ndarray):
            with head_inputs(self.module) as found:
                self(videos)
            return torch.cat(found).cpu()
        plan = adapters.with_views(self.adapter.plan, 1, 1)
        listed, _, workers = self._counted(videos, self.adapter.plan, num_workers)
        loaded = self._in_no_list(plan, listed, workers)
        scores, values = score_with_features(loaded, self._alone, "features")
        if scores.errors:
            raise ReadError(
                f"{len(scores.errors)} of {len(scores.paths)} videos cannot be read; leave them "
                f"out: {'; '.join(scores.errors.values())}"
            )
        return values

    def evaluate(
        self,
        videos: str | os.PathLike[str],
        *,
        split: Literal["test", "dev", "train"] = "test",
        root: str | os.PathLike[str] | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        num_workers: int | None = None,
    ) -> dict[str, Any]:
        """Evaluate on a list with labels, as the command does; no file of results is written.

        Args:
            videos: a list of `path label` lines, or a prepared folder, of which `split` is taken.
            root: folder that the paths are relative to; default: what the prepared folder says,
                else the list's own.
            num_clips, num_crops: views; default: those of the adapter's evaluation.
            num_workers: decoding processes; default: chosen from the cores.

        Returns:
            Each of `metrics_of` the labels by its name; `per_class`, `unreadable`, `views` and what
            else metrics.json of an evaluation holds.

        Raises:
            ValueError, OSError, ReadError: a list that cannot be used, or whose classes are others.
        """
        plan = adapters.with_views(self.adapter.plan, num_clips, num_crops)
        options, listed = list_with_labels(Path(videos), split, root)
        reader = self.adapter.config.data.reader
        options = replace(options, reader=reader, num_workers=num_workers)
        config = replace(self.adapter.config, data=options)
        found = Trained(config, plan, self.adapter.folder, split, listed)
        loaded = self._loaded(found, trained.videos_of(found))
        scores = trained.score(loaded, self._alone)
        about = {**trained.about(loaded), "warnings": list(loaded.videos.warnings)}
        return {**measure(scores, config.eval.fusion, about.get("thresholds")), **about}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the adapter's files into a new folder, for `load`; returns the folder.

        The backbone is not in it, unless the method is `full`.

        Raises:
            ConfigError: the folder exists and is not empty.
            WriteError: the disk refused.
        """
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"folder: {path} exists and is not empty; choose another")
        checkpoints.save_checkpoint(path, self.adapter.tensors, self.adapter.about)
        return path

    def push_to_hub(self, repository: str, *, private: bool = False) -> Pushed:
        """Write the adapter with its card into OWNER/NAME on the Hugging Face hub.

        Raises:
            HubError: no access, no connection, or another model is there already.
        """
        return push(self.adapter.folder, repository, private=private)

    def __repr__(self) -> str:
        return printable(f"Model({str(self.adapter.folder)!r}: {self.adapter.summary})")

    def _repr_html_(self) -> str:
        """Show the facts as a table, in a notebook."""
        plan, config, labels = self.adapter.plan, self.adapter.config, self.labels
        more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
        facts = {
            "folder": str(self.adapter.folder),
            "method": ", ".join(f"{key} {value}" for key, value in config.method.items()),
            "backbone": config.model.backbone,
            "trained values": f"{sum(map(Tensor.numel, self.adapter.tensors.values())):,}",
            f"{len(labels)} classes": ", ".join(labels[:MOST_NAMED]) + more,
            "clip": f"{plan.sampling.num_frames} frames of {plan.crop_size} pixels",
            "views": f"{plan.num_clips} clips x {plan.num_crops} crops",
            **figures_of_training(self.adapter.about),
        }
        return IN_A_NOTEBOOK.render(
            title=type(self).__name__,
            facts={name: printable(str(value)) for name, value in facts.items()},
        )

    @property
    def _alone(self) -> World:
        return World(0, 1, self.device)

    def _most_probable(self, logits: np.ndarray, top: int) -> tuple[Guess, ...]:
        return tuple(most_probable(self.adapter, logits, top))

    def _counted(
        self, videos: Paths, plan: DataPlan, num_workers: int | None
    ) -> tuple[VideoList, list[str], int]:
        """Count the frames of all videos; also their paths as given, and the processes to use."""
        given = [videos] if isinstance(videos, str | os.PathLike) else videos
        if not isinstance(given, Sequence) or not all(
            isinstance(one, str | os.PathLike) for one in given
        ):
            raise self._refused(videos)
        if not given:
            raise ValueError("videos: expected one or more")
        # One by one, so that a file that is given twice has two results.
        found = [video for one in given for video in find_videos([os.fspath(one)])]
        workers = workers_for(len(found)) if num_workers is None else num_workers
        reader, limit = self.adapter.config.data.reader, DataConfig.count_timeout
        listed = counted(found, reader, [plan.sampling], num_workers=workers, time_limit=limit)
        return listed, [video.path for video in found], workers

    def _in_no_list(self, plan: DataPlan, videos: VideoList, num_workers: int) -> Loaded:
        """Put the model and videos of absolute paths together, to be scored."""
        options = DataConfig(root="/", num_workers=num_workers)
        config = replace(self.adapter.config, data=options)
        return self._loaded(Trained(config, plan, self.adapter.folder, "test", ""), videos)

    def _loaded(self, found: Trained, videos: VideoList) -> Loaded:
        trained_values = sum(map(Tensor.numel, self.adapter.tensors.values()))
        return Loaded(found, self.module, trained_values, self.precision, videos)

    def _ready(self, clips: Clips) -> Tensor:
        """Clips as the network takes them, (B, 3, T, S, S) uint8."""
        tensor = clips
        if isinstance(clips, np.ndarray) and clips.dtype == np.uint8:
            tensor = torch.from_numpy(np.require(clips, requirements=["C", "W"]))
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8 or not tensor.numel():
            raise self._refused(clips)
        first, last = self._shapes()
        shape = tuple(tensor.shape[1:])
        if shape not in (first, last):
            raise self._refused(clips)
        return tensor if shape == first else tensor.permute(0, 4, 1, 2, 3)

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape of a clip with channels first, and last."""
        channels, *others = self.module.clip_shape
        return (channels, *others), (*others, channels)

    def _refused(self, given: object) -> ValueError:
        found = f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")
        if isinstance(given, np.ndarray | Tensor):
            found = f"{given.dtype} {tuple(given.shape)}"
        first, last = (", ".join(map(str, shape)) for shape in self._shapes())
        return ValueError(
            f"clips: expected paths of videos, or uint8 clips of shape (B, {last}) or "
            f"(B, {first}), B not 0; got {found}"
        )


def load(
    source: str | os.PathLike[str],
    backbone: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str | None = None,
) -> Model:
    """Load a trained run or adapter.

    Args:
        source: a run's folder (its `best` checkpoint if it has one, else `last`), or an adapter's,
            e.g. runs/mine/last; or hub:OWNER/NAME[@REVISION], which is fetched.
        backbone: file of the backbone's weights, or `hub:OWNER/REPO`; default: that of the run
            which the folder belongs to. Those that only adapter.json names are never opened.
        device: where to compute; default: the GPU if there is one.

    Raises:
        ValueError: a damaged folder, weights that must be named or are not the backbone's, or
            plug-ins that have not been imported; the message says how to mend it.
        FileNotFoundError: no such weights.
        HubError: the hub has no such adapter, or does not answer.
    """
    folder = adapters.find_adapter(os.fspath(source), "source")
    there = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    module, adapter = adapters.load_adapter(
        folder, weights=None if backbone is None else os.fspath(backbone)
    )
    module.to(there).requires_grad_(False)
    precision = resolved_precision(there, adapter.config.train.precision)
    cast_frozen(module, there, precision)
    return Model(adapter, module, there, precision)
