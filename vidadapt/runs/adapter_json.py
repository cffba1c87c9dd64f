"""Content of adapter.json: made from a run's configuration, read as one, and checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from vidadapt import methods
from vidadapt.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    TrainConfig,
    hints_of,
    misfits,
)
from vidadapt.console import require_known
from vidadapt.data import DATASETS, NORMALIZATIONS, Augmentation, DataPlan, Framing, Sampling
from vidadapt.video import READERS, control_character

# The second is written; the third, which versions without it refuse, of a multi-label list and
# where `clip` has keys of `data.Framing`.
# The fourth is of one whose clips are taken by time.
FORMATS = tuple(f"vidadapt-adapter-{number}" for number in (1, 2, 3, 4))
# Any adapter stays far below these: more is damage, or an attempt to use up the memory.
LARGEST = {"num_frames": 4096, "crop_size": 4096, "num_classes": 1_000_000}
LARGEST |= {"stride": 100_000, "num_clips": 10_000, "num_crops": 10_000}
LARGEST |= {"tubelet_size": 4096, "patch_size": 4096, "position_grid": 4096}
LARGEST |= {"resize": 4096, "segments": 4096, "head_depth": 64}
LARGEST |= {"num_heads": 4096, "head_heads": 4096}

# Keys of the model that say how the run began, which an adapter does not need.
OF_THE_RUN = ("drop_path", "head_weights", "head_weights_key")


def describe_adapter(
    config: Config, plan: DataPlan, backbone: str, manifest: str
) -> dict[str, Any]:
    """Make the content of adapter.json, without metrics.

    Args:
        backbone: fingerprint from `adapted_model`.
        manifest: hash of the training list.
    """
    model = {key: value for key, value in vars(config.model).items() if key not in OF_THE_RUN}
    by_time, framed = plan.sampling.fps is not None, plan.framing.settings()
    return {
        "format": FORMATS[3 if by_time else 2 if plan.multi_label or framed else 1],
        **({"plugins": list(config.plugins)} if config.plugins else {}),
        "method": dict(config.method),
        "model": {**model, "fingerprint": backbone},
        "clip": {
            "num_frames": plan.sampling.num_frames,
            "crop_size": plan.crop_size,
            "normalization": plan.normalization,
            **framed,
            "sampling": config.data.sampling or DATASETS[plan.dataset].sampling,
            "policy": plan.sampling.policy,
            "stride": plan.sampling.stride,
            # Left out where it is 1, so that versions without it read these adapters.
            **({"segments": plan.sampling.segments} if plan.sampling.segments > 1 else {}),
            **({} if plan.sampling.fps is None else {"sampling_fps": plan.sampling.fps}),
        },
        "evaluation": {
            **asdict(config.eval),
            "num_clips": plan.num_clips,
            "num_crops": plan.num_crops,
            "precision": config.train.precision,
        },
        "reader": config.data.reader,
        "dataset": plan.dataset,
        "num_classes": plan.num_classes,
        **({"multi_label": True} if plan.multi_label else {}),
        "label_names": None if plan.label_names is None else list(plan.label_names),
        "train_manifest": manifest,
        "metrics": {},
    }


def config_of(about: dict[str, Any], run_dir: str) -> Config:
    """Read the configuration that adapter.json describes."""
    clip, evaluation = about["clip"], about["evaluation"]
    return Config(
        run_dir=run_dir,
        method=about["method"],
        plugins=about.get("plugins", []),
        data=DataConfig(
            dataset=about["dataset"],
            sampling=clip["sampling"],
            num_frames=clip["num_frames"],
            sampling_fps=clip.get("sampling_fps"),
            crop_size=clip["crop_size"],
            normalization=clip["normalization"],
            **Framing.of(clip).settings(),
            reader=about["reader"],
            multi_label=about.get("multi_label", False),
        ),
        model=ModelConfig(**{k: v for k, v in about["model"].items() if k != "fingerprint"}),
        train=TrainConfig(precision=evaluation["precision"]),
        eval=EvalConfig(**{k: v for k, v in evaluation.items() if k != "precision"}),
    )


def plan_of(about: dict[str, Any]) -> DataPlan:
    """Read the clips, classes and views that adapter.json describes."""
    clip, evaluation, names = about["clip"], about["evaluation"], about["label_names"]
    views = evaluation["num_clips"], evaluation["num_crops"]
    time = clip["policy"], clip["num_frames"], clip["stride"]
    return DataPlan(
        dataset=about["dataset"],
        num_classes=about["num_classes"],
        label_names=None if names is None else tuple(names),
        sampling=Sampling(*time, *views, clip.get("segments", 1), clip.get("sampling_fps")),
        augmentation=Augmentation(),
        num_clips=views[0],
        num_crops=views[1],
        crop_size=clip["crop_size"],
        normalization=clip["normalization"],
        multi_label=about.get("multi_label", False),
        framing=Framing.of(clip),
    )


def thresholds_of(about: dict[str, Any]) -> list[float] | None:
    """Read the probabilities from which on classes are predicted; None: not known, or one label."""
    return about["metrics"].get("dev_thresholds")


def check_description(about: dict[str, Any], config: Config, plan: DataPlan) -> None:
    """Refuse values that no adapter can have, before a model is built from them.

    Args:
        config: from `config_of`.
        plan: from `plan_of`.

    Raises:
        ValueError, KeyError, TypeError: naming the key.
    """
    method = config.method
    inject = methods.METHODS[require_known("method.name", method["name"], methods.METHODS)]
    problems = misfits(method, {"name": str, **hints_of(inject)}, "method.")
    for section in ("data", "model", "train", "eval"):
        options = getattr(config, section)
        problems += misfits(vars(options), hints_of(type(options)), f"{section}.")
    problems += misfits(vars(plan), {**hints_of(DataPlan), "sampling": Sampling}, "")
    problems += misfits(vars(plan.sampling), hints_of(Sampling), "")
    problems += misfits(
        {"fingerprint": about["model"]["fingerprint"]}, {"fingerprint": str}, "model."
    )
    for name, most in LARGEST.items():
        parts = plan, plan.sampling, plan.framing, config.model
        value = next(getattr(part, name) for part in parts if hasattr(part, name))
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and not 1 <= number <= most:
                problems.append(f"{name}: {number} is outside 1..{most}")
    if not problems and (plan.framing.resize or plan.crop_size) < plan.crop_size:
        problems.append(f"resize: {plan.framing.resize} is below the crop_size {plan.crop_size}")
    names = [str(name) for name in plan.label_names or ()]
    if plan.label_names is not None and len(names) != plan.num_classes:
        problems.append(f"label_names: {len(names)} of {plan.num_classes} classes")
    if any(control_character(name) for name in names):
        problems.append("label_names: a control character")
    if not all(name.strip() for name in names):
        problems.append("label_names: an empty name")
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        problems.append(f"label_names: {doubled[0]!r} names two classes")
    at = thresholds_of(about)
    if at is not None and not (
        isinstance(at, list)
        and len(at) == plan.num_classes
        and all(isinstance(each, float | int) and 0 <= each <= 1 for each in at)
    ):
        problems.append(f"metrics.dev_thresholds: expected {plan.num_classes} probabilities")
    if problems:
        raise ValueError("; ".join(problems[:5]))
    for key, value, known in (
        ("dataset", plan.dataset, DATASETS),
        ("normalization", plan.normalization, NORMALIZATIONS),
        ("reader", config.data.reader, READERS),
    ):
        require_known(key, value, known)
