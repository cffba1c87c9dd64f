"""Parts of `benchmarks.gpu` that read videos: training and evaluation from packed frames.

Videos like Something-Something's are generated and packed once, and read from the system's cache.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.footage import FOOTAGE, Footage, generate
from benchmarks.small_runs import NUM_CLASSES, tool
from vidadapt import data, runs, training
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.cost import setting_of
from vidadapt.apps.study.loading import Batching, loader_seconds
from vidadapt.config import Config, TrainOptions
from vidadapt.data import DataPlan, VideoList
from vidadapt.distributed import World
from vidadapt.evaluation import score_views
from vidadapt.files import write_text
from vidadapt.lists import read_list
from vidadapt.models import Precision, VideoModel, cast_frozen, resolved_precision

if TYPE_CHECKING:
    from benchmarks.gpu_parts import Measurements, Place, Row

PASSES = 3  # over the videos that are evaluated
TRIAL = Footage(".avi", (120, 160), (24, 30), 12, 2.0, "mpeg4", {})


def loader(place: Place) -> Measurements:
    """Clips a second of training from packed clips, of its model alone and its loader alone."""
    return {
        "packing": lambda: packing(place),
        **{name: partial(fed, place, name) for name in ("adaptformer", "losa")},
    }


def views(place: Place) -> Measurements:
    """Videos a second of evaluation from packed clips, and of its model alone."""
    return {
        "packing": lambda: packing(place),
        "from packed clips": lambda: Evaluated.of(place).from_clips(),
        "model alone": lambda: Evaluated.of(place).from_memory(),
        "model alone, compiled": lambda: Evaluated.of(place).from_memory(compiled=True),
    }


def packing(place: Place) -> Row:
    """Generate and pack the videos that are missing; `seconds` of the row is what it took."""
    number, kind = (4, TRIAL) if place.tiny else (256, FOOTAGE["webm"])
    made = place.folder / "videos"
    if not (place.folder / "packed" / "prepared.json").exists():
        listed = generate(kind, number, made)
        write_text(made / "labels.txt", "".join(f"class {i}\n" for i in range(NUM_CLASSES)))
        words = ["frames", listed, "--root", made, "--out", place.folder / "packed"]
        tool("prepare", words)
    return {"videos": number}


def command(place: Place, method: str, *more: object) -> tuple[Config, TrainOptions]:
    """The configuration of a run on the packed videos."""
    packing(place)
    folder = place.folder / "packed"
    options: dict[str, Any] = {
        "run_dir": place.folder / "runs" / method,
        "data.root": folder,
        "data.train_list": folder / "train.txt",
        "data.label_names": place.folder / "videos" / "labels.txt",
        "data.sampling": "adaptformer",
        "data.num_frames": 2 if place.tiny else 8,
        "data.crop_size": 32 if place.tiny else 224,
        # Of an epoch, so that no timed step waits for the beginning of the next one. Copies share
        # reads: clips of as many videos would cost the loader more.
        "data.repeated_augmentation": 8,
        "model.backbone": "vit_tiny" if place.tiny else "vit_base",
        "model.weights": "random",
        "method.name": method,
        "train.batch_size": 2 if place.tiny else 64,
    }
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    return training.read_command([*words, *map(str, more)], world_of(place))


def world_of(place: Place) -> World:
    """This process, alone."""
    cuda = place.device == "cuda"
    return World(0, 1, torch.device("cuda", 0) if cuda else torch.device("cpu"))


def fed(place: Place, method: str) -> Row:
    """Steps of a real run, timed by `--profile`; its model's on one batch; its loader's batches.

    Busy share: of the time in which the device does not wait for data.
    """
    timed = 2 if place.tiny else 20
    cfg, options = command(place, method, "--profile", timed)
    world = world_of(place)
    training.train(world, cfg, options)
    profile = place.folder / "runs" / method / runs.PROFILE / "profile.json"
    found = json.loads(profile.read_text(encoding="utf-8"))
    seconds = found["seconds"]
    plan = data.resolve(cfg.data, cfg.eval)
    batch = cfg.train.batch_size
    precision = resolved_precision(world.device, cfg.train.precision)
    setting = setting_of(cfg, plan, device=place.device, precision=precision)
    step = benchmark.measure(setting, cfg.method, steps=timed, threads=None).step_seconds
    loading = loader_seconds(cfg.data, plan, Batching(batch, 1, cfg.train.seed), 1, None)
    return {
        "batch": batch,
        "precision": precision,
        "workers": loading.num_workers,
        "clips_per_second": found["clips_per_second"],
        "model_clips_per_second": batch / step,
        "loader_clips_per_second": 1 / statistics.median(loading.seconds_per_clip),
        "fed_share": found["clips_per_second"] * step / batch,
        "busy_share": 1 - seconds["wait for data"] / seconds["step"],
        "phase_seconds": seconds,
    }


@dataclass(frozen=True)
class Evaluated:
    """A list that is evaluated, and the model."""

    place: Place
    cfg: Config
    plan: DataPlan
    videos: VideoList
    model: VideoModel
    precision: Precision

    @classmethod
    def of(cls, place: Place) -> Evaluated:
        """The packed videos and an adapted ViT-B."""
        cfg, _ = command(place, "adaptformer")
        plan = data.resolve(cfg.data, cfg.eval)
        listed = str(cfg.data.train_list)
        samples = read_list(listed, cfg.data.root, plan.num_classes)
        videos = data.load_list(cfg.data, plan, listed, samples, training=False)
        model = runs.adapted_model(cfg, plan)[0].to(place.device).eval()
        precision = resolved_precision(torch.device(place.device), cfg.train.precision)
        cast_frozen(model, torch.device(place.device), precision)
        return cls(place, cfg, plan, videos, model, precision)

    def from_clips(self) -> Row:
        """Videos a second from the loader, whose processes have started."""
        loader = self._loader()
        return self._row(self._timed(loader, 1 + PASSES)[1:])

    def from_memory(self, compiled: bool = False) -> Row:
        """Videos a second with all frames in memory; the first passes do not count."""
        items = [*self._loader()]
        if compiled:
            self.model.compile(backend="eager" if self.place.tiny else "inductor")
        return self._row(self._timed(items, 2 + PASSES)[2:])

    def _loader(self) -> data.EvalLoader:
        pinned = self.place.device == "cuda"
        return data.eval_loader(self.cfg.data, self.plan, self.videos, pin_memory=pinned)

    def _timed(self, items: Iterable[Mapping[str, Any]], passes: int) -> list[float]:
        """Seconds of each pass."""
        seconds = []
        for _ in range(passes):
            began = time.perf_counter()
            self._scored(items)
            seconds.append(time.perf_counter() - began)
        return seconds

    def _scored(self, items: Any) -> None:
        """Score all videos; the scores come back to the host, which waits for the device."""
        score_views(
            self.model,
            items,
            paths=self.videos.samples.paths,
            labels=self.videos.samples.labels,
            num_classes=self.plan.num_classes,
            num_clips=self.plan.num_clips,
            num_crops=self.plan.num_crops,
            normalization=self.plan.normalization,
            views_per_forward=self.cfg.eval.views_per_forward,
            precision=self.precision,
            world=world_of(self.place),
            shown=False,
        )

    def _row(self, seconds: list[float]) -> Row:
        number = len(self.videos.samples)
        return {
            "videos": number,
            "views": self.plan.num_clips * self.plan.num_crops,
            "videos_per_second": number / statistics.median(seconds),
            "seconds_of_passes": seconds,
        }
