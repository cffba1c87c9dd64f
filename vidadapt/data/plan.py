"""Resolve the data options into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from vidadapt.config import DataConfig, EvalConfig
from vidadapt.console import require_known
from vidadapt.data.datasets import DATASETS
from vidadapt.data.sampling import SAMPLINGS, Sampling
from vidadapt.data.transforms import (
    NORMALIZATIONS,
    PLAIN,
    TRAIN_CROPS,
    Augmentation,
    Framing,
)
from vidadapt.files import is_url, refuse_credentials
from vidadapt.lists import read_label_names
from vidadapt.video import READERS, check_reader


@dataclass(frozen=True)
class DataPlan:
    """The resolved data options, checked and complete.

    Attributes:
        dataset: key of `DATASETS`.
        num_classes: K.
        multi_label: a video has any number of labels.
        label_names: K class names in label order; None without a label file.
        sampling: the preset with the overrides of num_frames, stride and sampling_fps.
        augmentation: of training clips, with the data set's rule of mirroring.
        num_clips: temporal clips at evaluation.
        num_crops: spatial crops of each clip at evaluation.
        crop_size: S.
        framing: how frames become squares of that side.
        normalization: key of `NORMALIZATIONS`, for `transforms.normalize` on the device.
    """

    dataset: str
    num_classes: int
    label_names: tuple[str, ...] | None
    sampling: Sampling
    augmentation: Augmentation
    num_clips: int
    num_crops: int
    crop_size: int
    normalization: str
    multi_label: bool = False
    framing: Framing = PLAIN


def resolve(
    data: DataConfig, evaluation: EvalConfig, label_names: Sequence[str] | None = None
) -> DataPlan:
    """Turn names and options into a plan.

    Args:
        label_names: of the classes, where they are known; default: those of `data.label_names`.

    Raises:
        ValueError: an unknown name (with the near ones), a value out of range, mirroring asked for
            where it changes the class, a stride in uniform sampling, no classes, or a label file
            that is missing, unusable or of another number of classes.
        ImportError: the reader asked for cannot be loaded.
    """
    _check_ranges(data)
    if is_url(data.root):
        refuse_credentials(data.root)
    dataset = DATASETS[require_known("data.dataset", data.dataset, DATASETS)]
    require_known("data.normalization", data.normalization, NORMALIZATIONS)
    require_known("data.train_crop", data.train_crop, TRAIN_CROPS)
    check_reader(require_known("data.reader", data.reader, READERS))
    if label_names is None and data.label_names:
        label_names = read_label_names(data.label_names)
    names = None if label_names is None else tuple(label_names)
    if dataset.num_classes is None and names is None:
        raise ValueError(
            f"data.dataset {data.dataset!r} needs data.label_names: a file with one class name a "
            "line, in label order"
        )
    num_classes = dataset.num_classes or len(names or ())
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"{data.label_names or 'the run'} names {len(names)} classes, but {data.dataset} has "
            f"{num_classes}"
        )
    if data.flip and not dataset.may_flip:
        raise ValueError(
            f"data.flip must not be true for {data.dataset}: mirroring turns some of its classes "
            "into others; leave it out"
        )
    preset = SAMPLINGS[require_known("data.sampling", data.sampling or dataset.sampling, SAMPLINGS)]
    overrides: dict[str, Any] = {
        "num_frames": data.num_frames,
        "stride": data.stride,
        "fps": data.sampling_fps,
        "num_clips": evaluation.num_clips,
        "num_crops": evaluation.num_crops,
    }
    sampling = replace(preset, **{k: v for k, v in overrides.items() if v is not None})
    asked = {field.name: getattr(data, field.name) for field in fields(Augmentation)}
    if asked["flip"] is None:
        asked["flip"] = dataset.flip
    return DataPlan(
        dataset=data.dataset,
        num_classes=num_classes,
        label_names=names,
        sampling=sampling,
        augmentation=Augmentation(**asked),
        num_clips=sampling.num_clips,
        num_crops=sampling.num_crops,
        crop_size=data.crop_size,
        normalization=data.normalization,
        multi_label=data.multi_label,
        framing=Framing.of(data),
    )


def require_one_label(data: DataConfig | DataPlan, what: str) -> None:
    """Refuse multi-label lists where something knows one label a video.

    Raises:
        ValueError: names it.
    """
    if data.multi_label:
        raise ValueError(
            f"data.multi_label: {what} takes lists with one label a video; leave it out"
        )


def _check_ranges(data: DataConfig) -> None:
    if data.resize is not None and data.fit == "squash":
        raise ValueError(
            f"data.resize is {data.resize}, but data.fit squash makes a square of the whole frame; "
            "leave data.resize out"
        )
    if data.resize is not None and data.resize < data.crop_size:
        raise ValueError(
            f"data.resize is {data.resize}, and crops of data.crop_size {data.crop_size} do not "
            "fit into it; raise it, or leave it out"
        )
    for name, least in (
        ("crop_size", 1),
        ("repeated_augmentation", 1),
        ("max_unreadable", 0),
        ("max_skipped", 0),
    ):
        if not getattr(data, name) >= least:  # refuses NaN, too
            raise ValueError(f"data.{name} must be at least {least}, not {getattr(data, name)}")
    for name in ("clip_timeout", "count_timeout"):
        limit = getattr(data, name)
        if limit is not None and not limit > 0:
            raise ValueError(f"data.{name} must be above 0, or null, not {limit}")
    if data.max_skipped > 1 and data.max_skipped % 1:
        raise ValueError(
            f"data.max_skipped is a number of clips, or below 1 a share, not {data.max_skipped}"
        )
    if data.num_workers is not None and data.num_workers < 0:
        raise ValueError(f"data.num_workers must be at least 0, not {data.num_workers}")
    if not 0 <= data.random_erasing <= 1:
        raise ValueError(f"data.random_erasing is a probability, not {data.random_erasing}")
