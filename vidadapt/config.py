"""The whole configuration as frozen dataclasses; YAML and command line through jsonargparse.

A run is described by one YAML file plus dotted overrides (`--train.epochs 10`). The options of a
method are the keyword-only arguments of its `inject` function, so they live in `methods/`, and
`--help` shows those of the method that was chosen.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace


class ConfigError(ValueError):
    """A configuration that cannot be meant, naming the key."""


@dataclass(frozen=True)
class DataConfig:
    """Which videos, which frames of them, and how they become clips.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`; carries the number of classes, the flip rule and
            the sampling preset.
        root: folder that the paths in the lists are relative to.
        train_list: `path label` list to train on.
        dev_list: development split for choosing the best epoch; never the test list.
        test_list: list that is reported.
        label_names: file with one class name a line, in label order; required by `custom`.
        sampling: sampling preset; default: the data set's.
        num_frames: T, frames of one clip; default: the preset's.
        stride: frames between two frames of a dense clip; default: the preset's.
        crop_size: S, side of the square crop in pixels.
        train_crop: random crop in training.
        flip: mirror training clips at random; default: the data set's rule. Asking for it where
            the data set forbids it is an error.
        rand_augment: torchvision v2 RandAugment, 4 operations, magnitude 7 of 10.
        random_erasing: probability of erasing one box of the clip.
        repeated_augmentation: how many independently augmented copies of a video an epoch holds,
            adjacent in the batch.
        normalization: key of `vidadapt.data.transforms.NORMALIZATIONS`.
        reader: key of `vidadapt.data.readers.READERS`.
        num_workers: loader processes per training process.
        index_dir: folder for the frame-count index; default: beside each list.
        truncated: what to do with a file whose header promises more frames than decode.
        max_unreadable: how many unreadable training videos may be left out (listed, counted);
            one more is an error. Evaluation never leaves a video out.
        check_files: check up front that every listed file exists.
    """

    dataset: str = "custom"
    root: str = "."
    train_list: str | None = None
    dev_list: str | None = None
    test_list: str | None = None
    label_names: str | None = None
    sampling: str | None = None
    num_frames: int | None = None
    stride: int | None = None
    crop_size: int = 224
    train_crop: Literal["multi_scale", "random_resized"] = "multi_scale"
    flip: bool | None = None
    rand_augment: bool = False
    random_erasing: float = 0.0
    repeated_augmentation: int = 1
    normalization: str = "imagenet"
    reader: str = "decord"
    num_workers: int = 4
    index_dir: str | None = None
    truncated: Literal["warn", "error"] = "warn"
    max_unreadable: int = 0
    check_files: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """The backbone and the file its weights come from.

    Attributes:
        backbone: key of `vidadapt.models.BACKBONES`.
        weights: checkpoint file (any recognised family, or `demo`); none: random initialisation.
        tubelet_size: frames of one token.
        patch_size: side of one token in pixels; default: the backbone's.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.
        head: key of `vidadapt.models.heads.HEADS`.
    """

    backbone: str = "vit_base"
    weights: str | None = None
    tubelet_size: int = 2
    patch_size: int | None = None
    drop_path: float = 0.0
    head: str = "batchnorm_linear"


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation recipe.

    Attributes:
        epochs: passes over the training list.
        batch_size: clips per process and micro-step.
        accumulation: micro-steps per optimiser step; global batch = batch_size x processes x this.
        optimizer: SGD (momentum 0.9, no Nesterov) or AdamW (betas 0.9, 0.999).
        base_lr: learning rate per 256 clips of global batch.
        weight_decay: on tensors of two and more dimensions only.
        warmup_epochs: linear warm-up from 0, per step.
        min_lr: learning rate at the end of the cosine.
        layer_decay: learning-rate factor per layer below the head.
        label_smoothing: of the cross-entropy.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of cutmix; 0 is off.
        ema: decay of an average of the trainable tensors that is evaluated and saved; 0 is off.
        precision: autocast type; `auto`: bf16 where the device computes in it, else fp32.
        clip_grad: largest gradient norm; 0 is off.
        compile: compile the model with `torch.compile`.
        seed: of everything random.
    """

    epochs: int = 90
    batch_size: int = 16
    accumulation: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float = 0.1
    weight_decay: float = 0.0
    warmup_epochs: float = 10.0
    min_lr: float = 0.0
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    clip_grad: float = 0.0
    compile: bool = False
    seed: int = 0


@dataclass(frozen=True)
class EvalConfig:
    """Multi-view evaluation.

    Attributes:
        num_clips: temporal clips per video; default: the sampling preset's.
        num_crops: spatial crops per clip; default: the sampling preset's.
        fusion: what is averaged over the views of a video.
        views_per_forward: micro-batch; the views of two videos never share one.
    """

    num_clips: int | None = None
    num_crops: int | None = None
    fusion: Literal["softmax", "logits"] = "softmax"
    views_per_forward: int = 16


@dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
        run_dir: folder that the run writes.
        method: `name` and the method's options.
    """

    run_dir: str
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "adaptformer"})
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


@dataclass(frozen=True)
class EvaluateOptions:
    """What one evaluation is asked for beside the run's configuration.

    Attributes:
        run_dir: run folder to evaluate.
        checkpoint: which of its checkpoints; default: `best` if the run chose one on a
            development list, else `last`.
        split: which list.
        out: folder for metrics.json and scores.npz; default: inside the run's folder.
        from_scores: recompute the metrics from this scores.npz, without a model.
        fusion: for `from_scores`.
    """

    run_dir: str | None = None
    checkpoint: Literal["best", "last"] | None = None
    split: Literal["test", "dev"] = "test"
    out: str | None = None
    from_scores: str | None = None
    fusion: Literal["softmax", "logits"] = "softmax"


Methods = Mapping[str, Callable[..., None]]

TRAIN_HELP = """Adapt a video transformer to a list of videos.

    python tools/train.py --config configs/ssv2/adaptformer.yaml --run_dir runs/ssv2_adaptformer \\
        --data.root VIDEOS --data.train_list train.txt --model.weights videomae_vit_b.pth
    torchrun --nproc-per-node 8 tools/train.py --config ... --train.epochs 10

Any key of the configuration is an option. The options of a method are shown for the chosen one:
    python tools/train.py --method.name full --help
"""

EVALUATE_HELP = """Evaluate a run on a list, several clips x crops a video, exactly.

    python tools/evaluate.py --run_dir runs/ssv2_adaptformer --eval.num_clips 4 --eval.num_crops 3
    torchrun --nproc-per-node 8 tools/evaluate.py --run_dir runs/ssv2_adaptformer --split dev
    python tools/evaluate.py --from-scores runs/.../scores.npz --eval.fusion logits

The run's own configuration is the default of every option below.
"""


def parse_train(argv: list[str], methods: Methods) -> tuple[Config, bool]:
    """The configuration of a training run, and whether to resume it.

    Raises:
        ConfigError: unknown or malformed keys.
        SystemExit: after --help or --print_config.
    """
    parser = _parser("tools/train.py", TRAIN_HELP, methods, _method_name(argv, methods))
    parser.add_argument("--run_dir", type=str, required=True, help="folder that the run writes")
    parser.add_argument("--resume", action="store_true", help="continue the run in run_dir")
    parsed = _parse(parser, argv)
    return _config(parser, parsed, parsed.run_dir), parsed.resume


def parse_evaluate(argv: list[str], methods: Methods) -> tuple[Config | None, EvaluateOptions]:
    """The run's configuration with overrides (None for `--from-scores`), and what is asked.

    Raises:
        ConfigError: unknown or malformed keys, no such run.
        SystemExit: after --help.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--run_dir")
    run_dir = early.parse_known_args(argv)[0].run_dir
    if run_dir is not None:
        saved = Path(run_dir) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(
                f"--run_dir: {saved} does not exist; give a folder made by tools/train.py"
            )
        argv = ["--config", str(saved), *argv]
    parser = _parser("tools/evaluate.py", EVALUATE_HELP, methods, _method_name(argv, methods))
    parser.add_argument("--run_dir", type=str | None, help="run folder to evaluate")
    parser.add_argument(
        "--checkpoint",
        type=Literal["best", "last"] | None,
        help="which checkpoint of the run; default: best if it has one, else last",
    )
    parser.add_argument("--split", type=Literal["test", "dev"], default="test", help="which list")
    parser.add_argument("--out", type=str | None, help="folder to write; default: in the run's")
    parser.add_argument(
        "--from-scores", type=str | None, help="recompute from this scores.npz, without a model"
    )
    parsed = _parse(parser, argv)
    options = EvaluateOptions(
        run_dir,
        parsed.checkpoint,
        parsed.split,
        parsed.out,
        parsed.from_scores,
        parsed.eval.fusion,
    )
    if (run_dir is None) == (options.from_scores is None):
        raise ConfigError("give either --run_dir FOLDER or --from-scores FILE")
    if run_dir is None:
        return None, options
    return _config(parser, parsed, run_dir), options


def dump(config: Config) -> str:
    """The resolved configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain dicts."""
    sections = {key: dict(vars(getattr(config, key))) for key in SECTIONS}
    return {"run_dir": config.run_dir, "method": dict(config.method), **sections}


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
}


# What may change when a run is resumed: it alters neither what is computed nor its result. The
# global batch is checked apart, so that batch_size and accumulation may share it out differently.
FREE_ON_RESUME = {
    "run_dir",
    "data.root",
    "data.num_workers",
    "data.index_dir",
    "data.check_files",
    "eval.views_per_forward",
    "train.batch_size",
    "train.accumulation",
}


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations as "key: old -> new", less `FREE_ON_RESUME`.

    >>> differences({"train": {"epochs": 3}}, {"train": {"epochs": 4}})
    ['train.epochs: 3 -> 4']
    """
    found = []
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{name}.")
        elif old != new and name not in FREE_ON_RESUME:
            found.append(f"{name}: {old!r} -> {new!r}")
    return found


def check(config: Config, world_size: int) -> None:
    """What can be known to be impossible from the configuration alone.

    Raises:
        ConfigError: naming the key, what was expected and how to mend it.
    """
    recipe = config.train
    at_least = {
        "train.epochs": (recipe.epochs, 1),
        "train.batch_size": (recipe.batch_size, 1),
        "train.accumulation": (recipe.accumulation, 1),
        "train.warmup_epochs": (recipe.warmup_epochs, 0),
        "train.base_lr": (recipe.base_lr, 0),
        "train.min_lr": (recipe.min_lr, 0),
        "train.weight_decay": (recipe.weight_decay, 0),
        "train.mixup": (recipe.mixup, 0),
        "train.cutmix": (recipe.cutmix, 0),
        "train.clip_grad": (recipe.clip_grad, 0),
        "train.seed": (recipe.seed, 0),
        "eval.views_per_forward": (config.eval.views_per_forward, 1),
    }
    for key, (value, least) in at_least.items():
        if value < least:
            raise ConfigError(f"{key}: expected {least} or more, got {value}")
    for key, share in {
        "train.label_smoothing": recipe.label_smoothing,
        "train.ema": recipe.ema,
    }.items():
        if not 0 <= share < 1:
            raise ConfigError(f"{key}: expected a number in [0, 1), got {share}")
    if not 0 < recipe.layer_decay <= 1:
        raise ConfigError(
            f"train.layer_decay: expected a number in (0, 1], got {recipe.layer_decay}"
        )
    if recipe.warmup_epochs > recipe.epochs:
        raise ConfigError(
            f"train.warmup_epochs: {recipe.warmup_epochs} are more than train.epochs "
            f"{recipe.epochs}; the peak learning rate would never be reached"
        )
    if config.data.train_list is None:
        raise ConfigError("data.train_list: is not set; give a list of `path label` lines")
    if recipe.batch_size == 1 and config.model.head == "batchnorm_linear":
        raise ConfigError(
            "train.batch_size: the BatchNorm of model.head batchnorm_linear needs 2 clips or more "
            f"in every process, got 1 (on {world_size} processes); raise it, start fewer "
            "processes, or use model.head linear"
        )
    if recipe.batch_size == 1 and (recipe.mixup > 0 or recipe.cutmix > 0):
        raise ConfigError(
            "train.batch_size: mixup and cutmix need 2 clips or more in every process, got 1"
        )


def _parser(prog: str, description: str, methods: Methods, method: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; may be given several times")
    parser.add_argument(
        "--method.name", type=str, default="adaptformer", help=f"one of {', '.join(methods)}"
    )
    parser.add_function_arguments(methods[method], "method", skip={"model"})
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    return parser


def _parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    try:
        return parser.parse_args(argv)
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(_with_near_names(str(error), parser)) from error


def _with_near_names(message: str, parser: ArgumentParser) -> str:
    known = [action.dest for action in parser._actions]
    group = re.search(r"[Gg]roup '([\w.]+)' does not accept option '([\w.]+)'", message)
    if group:
        unknown = [f"{group.group(1)}.{group.group(2)}"]
    else:
        unknown = re.findall(r"--([\w.]+)", message) if "nrecognized" in message else []
    hints = {key: difflib.get_close_matches(key, known, n=3, cutoff=0.6) for key in unknown}
    said = [f"{key}: did you mean {' or '.join(near)}?" for key, near in hints.items() if near]
    return "\n".join([message.strip(), *said])


def _method_name(argv: list[str], methods: Methods) -> str:
    """The method that the command line or the last YAML file names; its options are added next."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--method.name", dest="name")
    early.add_argument("--config", action="append", default=[])
    known = early.parse_known_args(argv)[0]
    name = known.name
    for file in reversed(known.config):
        if name is not None:
            break
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"--config: cannot read {file} ({error.strerror})") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"--config: {file} is not valid YAML: {error}") from error
        if isinstance(content, dict) and isinstance(content.get("method"), dict):
            name = content["method"].get("name")
    name = "adaptformer" if name is None else name
    if name not in methods:
        near = difflib.get_close_matches(str(name), methods, n=3, cutoff=0.4) or list(methods)
        raise ConfigError(f"method.name: {name!r} is unknown; did you mean {' or '.join(near)}?")
    return name


def _config(parser: ArgumentParser, parsed: Namespace, run_dir: str) -> Config:
    made = parser.instantiate(parsed)
    return Config(
        run_dir=run_dir,
        method=vars(parsed.method),
        data=made.data,
        model=made.model,
        train=made.train,
        eval=made.eval,
    )
