"""Command lines of vidadapt train, vidadapt evaluate and vidadapt browse.

A run is described by one YAML file plus dotted overrides (`--train.epochs 10`). `--help` shows the
options of the method that was chosen. Options are spelt with underscores; dashes are read, too.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from vidadapt.config.parsing import (
    HELP_ALL,
    Methods,
    choose_method,
    config_of,
    new_parser,
    options_of,
    parse,
    spelt,
    typed,
    value_of,
)
from vidadapt.config.plugins import import_plugins, named_in, require_imported
from vidadapt.config.schema import (
    SECTIONS,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    as_dict,
)
from vidadapt.config.typed import Within, out_of_range
from vidadapt.config.yaml_files import flattened, read_yaml

Number = Annotated[int | None, Within("[1, inf)")]


@dataclass(frozen=True)
class GridOptions:
    """Values of a grid, of which every combination trains side by side with the others.

    Attributes:
        base_lr: values of train.base_lr, as [0.1,0.3,1]: train a run for each of them, all on the
            same clips and features, in folders below run_dir; see docs/methods.md.
        weight_decay: values of train.weight_decay, likewise.
    """

    base_lr: list[float] | None = None
    weight_decay: list[float] | None = None


@dataclass(frozen=True)
class TrainOptions:
    """Options of one training run beside its configuration.

    Attributes:
        run_dir: folder that the run writes.
        profile: do not train: time so many steps (20 are plenty), say where their time goes, and
            write a trace for ui.perfetto.dev into run_dir/profile.
        resume: continue the run in run_dir, or the one at `mirror` where run_dir is empty.
        mirror: URL of a folder in a store, s3://bucket/runs/a: run_dir is copied to it at the
            start, after each checkpoint and at the end.
        dropped: a line for each configuration file that lost options of another method.
        grid: train a grid of runs in the place of one.
    """

    run_dir: str
    profile: Number = None
    resume: bool = False
    mirror: str | None = None
    dropped: tuple[str, ...] = ()
    grid: GridOptions | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of one evaluation beside the run's configuration.

    Attributes:
        run_dir: run folder to evaluate, or its URL in a store.
        adapter: adapter folder to evaluate, without its run; or its URL, or
            hub:OWNER/NAME[@REVISION], which is fetched.
        checkpoint: which checkpoint of the run; default: `best` if the run chose one on a
            development list, else `last`.
        split: which list.
        out: folder for metrics.json and scores.npz; default: inside the run's folder.
        mirror: URL of a folder in a store that the results are copied to, too.
        from_scores: recompute the metrics from this scores.npz, without a model; with `folds` a
            pattern in quotes, which names one of each fold.
        folds: folder that vidadapt prepare --folds wrote: join the folds that `from_scores` names
            into one result, every video once, and say how far it may be chance.
        fusion: `eval.fusion`, for `from_scores`.
    """

    run_dir: str | None = None
    adapter: str | None = None
    checkpoint: Literal["best", "last"] | None = None
    split: Literal["test", "dev"] = "test"
    out: str | None = None
    mirror: str | None = None
    from_scores: str | None = None
    folds: str | None = None
    fusion: Literal["softmax", "logits"] = "softmax"


@dataclass(frozen=True)
class BrowseOptions:
    """Options of a look at the data beside the configuration of the training run.

    Attributes:
        list_path: `path label` list to look at.
        out: folder for index.html and sheet.png; default: browse/<name of the list>.
        clips_per_class: videos of each class, chosen by train.seed.
        classes: only the first so many classes; default: all.
        epochs: show the training views of the first so many epochs, each video in each.
        thumb: side of a frame on the page in pixels; default: one that keeps it near 20 MB.
        evaluation: also show the centre view, as validation sees it.
    """

    list_path: str
    out: str | None = None
    clips_per_class: Annotated[int, Within("[1, inf)")] = 3
    classes: Number = None
    epochs: Annotated[int, Within("[1, inf)")] = 1
    thumb: Number = None
    evaluation: bool = True


TRAIN_HELP = """Adapt a video transformer to a list of videos.

    vidadapt train --config ssv2/adaptformer --run_dir runs/ssv2_adaptformer \\
        --data.lists LISTS_OF_PREPARE --model.weights videomae_vit_b.pth
    torchrun --nproc-per-node 8 -m vidadapt train --config ... --train.epochs 10
    vidadapt train --config ... --run_dir ... --profile 20
    vidadapt train --config ssv2/linear --run_dir runs/probes ... --grid.base_lr [0.1,0.3,1] \\
        --grid.weight_decay [0,0.05]

--config takes a YAML file, or the name of one that comes with vidadapt (ssv2/linear, ...). Any key
of a configuration is an option, see --help_all. The options of the chosen method are shown:
    vidadapt train --method.name full --help
Exit statuses, and failure.json in the run folder: docs/failures.md.
"""

EVALUATE_HELP = """Evaluate on a list, several clips x crops a video, exactly.

    vidadapt evaluate --run_dir runs/ssv2_adaptformer --eval.num_clips 4 --eval.num_crops 3
    torchrun --nproc-per-node 8 -m vidadapt evaluate --run_dir runs/ssv2_adaptformer --split dev
    vidadapt evaluate --run_dir runs/ssv2_adaptformer --data.lists OTHER_LISTS_OF_PREPARE
    vidadapt evaluate --adapter ssv2_adapter --data.root VIDEOS --data.test_list test.txt \\
        --model.weights videomae_vit_b.pth
    vidadapt evaluate --model.weights FOLDER --model.head from_file --data.dataset ssv2 \\
        --data.lists LISTS_OF_PREPARE --data.sampling videomae_ssv2
    vidadapt evaluate --from_scores runs/.../scores.npz --eval.fusion logits
    vidadapt evaluate --folds LISTS_OF_PREPARE --from_scores 'runs/fold*/eval_*/scores.npz'

The configuration of the run or the adapter is the default of every option below. A run knows its
classes, and where its relative paths begin; --data.lists takes the place of its lists. With
--model.head from_file a published classifier is scored as it is, without a run: docs/evaluation.md.
Exit statuses, and failure.json in the folder of results: docs/failures.md.
"""

BROWSE_HELP = """Look at a list as a training run would see it, before spending days on it.

    vidadapt browse train.txt --config ssv2/adaptformer --data.root VIDEOS
    vidadapt browse LISTS_OF_PREPARE/train.txt --data.rand_augment true --epochs 3
    vidadapt browse train.txt --config runs/mine/config.yaml

Writes index.html (one file, opens without a network) and sheet.png: for a few videos of each class
the frames after sampling, crop, flip and augmentation, as the same keys of vidadapt train give
them. Label names are those of data.label_names, else of labels.txt beside the list. Videos that
cannot be read are shown with the cause, and the exit status is 1 then (others: docs/failures.md).
"""
NOT_FOR_BROWSE = (
    *("train_list", "dev_list", "test_list", "normalization", "truncated", "changed"),
    *("clip_timeout", "max_skipped", "check_files"),
)

# Options of an evaluation: of a run, of an adapter alone, of both. A run's other options can be
# given, too, but only with their values from training.
RUN_KEYS = ("data.label_names", "data.sampling", "data.stride")
ADAPTER_KEYS = ("data.lists", "data.label_names")
EVALUATION_KEYS = (
    *("data.root", "data.test_list", "data.dev_list", "data.reader", "data.num_workers"),
    *("data.index_dir", "data.count_timeout", "data.truncated", "data.changed"),
    *("data.check_files", "data.quarantine", "data.allow_outside_root"),
    *("model.weights", "model.weights_key", "train.precision"),
    *(f"eval.{key}" for key in EvalConfig.__dataclass_fields__),
)


@dataclass(frozen=True)
class NoOptions:
    """Options of a command that has only keys of the configuration."""


# Options of a published classifier, with those of the data, the model and the views.
PUBLISHED = ("--model.head", "from_file")
PUBLISHED_SECTIONS = ("data", "model", "eval")
PUBLISHED_KEYS = (
    *("model.head", "model.head_weights", "model.head_weights_key", "model.backbone"),
    *("model.num_heads", "model.class_order", "data.dataset", "data.num_frames", "data.crop_size"),
    "data.normalization",
)
# Options of features: of a backbone alone; with an adapter, which knows its clips, only precision.
PRECISION = "train.precision"
BACKBONE_KEYS = (
    *("data.dataset", "data.sampling", "data.num_frames", "data.stride", "data.sampling_fps"),
    *("data.crop_size", "data.resize", "data.interpolation", "data.fit", "data.normalization"),
    "data.reader",
    *("model.backbone", "model.weights", "model.weights_key", "model.tubelet_size"),
    *("model.patch_size", "model.num_heads", "model.position_grid", "model.from_image"),
    *("model.inflation", PRECISION),
)


def parse_train(argv: list[str], methods: Methods) -> tuple[Config, TrainOptions]:
    """Parse the command line of vidadapt train: configuration and other options.

    Raises:
        ConfigError: unknown or malformed keys, or options that do not go together.
        SystemExit: after --help or --print_config.
    """
    argv = spelt(argv)
    imported = import_plugins(argv)
    method, argv, dropped = choose_method(argv, methods)
    skip = frozenset({"resume", "dropped", "grid"})
    parser = new_parser(
        "vidadapt train",
        TRAIN_HELP,
        TrainOptions,
        methods,
        method,
        everything=HELP_ALL in argv,
        skip=skip,
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in run_dir")
    parser.add_class_arguments(GridOptions, "grid")
    next(action for action in parser._actions if action.dest == "grid").help = argparse.SUPPRESS
    parsed = parse(parser, argv)
    grid = GridOptions(**vars(parsed.grid))
    grid_asked = None if grid == GridOptions() else grid
    options = options_of(TrainOptions, parsed, dropped=dropped, grid=grid_asked)
    if options.profile is not None and options.grid is not None:
        raise ConfigError("--profile: times one run; leave --grid out, whose runs take its batches")
    if options.profile is not None and options.resume:
        raise ConfigError("--profile: trains nothing that --resume could continue; leave one out")
    if options.mirror is not None and (options.profile is not None or options.grid is not None):
        raise ConfigError("--mirror: copies a run, neither a grid of runs nor a profile")
    return config_of(parsed, options.run_dir, methods, imported), options


def parse_browse(argv: list[str], methods: Methods) -> tuple[Config, BrowseOptions]:
    """Parse the command line of vidadapt browse: training configuration and other options.

    Raises:
        ConfigError: unknown or malformed keys, a number that is too small.
        SystemExit: after --help.
    """
    argv = spelt(argv)
    imported = import_plugins(argv)
    method, argv, _ = choose_method(argv, methods)
    browse_keys = DataConfig.__dataclass_fields__.keys() - set(NOT_FOR_BROWSE)
    parser = new_parser(
        "vidadapt browse",
        BROWSE_HELP,
        BrowseOptions,
        methods,
        method,
        everything=HELP_ALL in argv,
        shown={"config", "train.seed", *(f"data.{key}" for key in browse_keys)},
        skip=frozenset({"list_path", "evaluation"}),
    )
    parser.add_argument("list", type=str, help="`path label` list to look at")
    parser.add_argument("--no_evaluation", action="store_true", help="show training views only")
    parser.add_argument(
        "--run_dir", type=str, default="", help=argparse.SUPPRESS
    )  # of a run's config.yaml
    parsed = parse(parser, argv)
    options = options_of(
        BrowseOptions, parsed, list_path=parsed.list, evaluation=not parsed.no_evaluation
    )
    config = config_of(parsed, parsed.run_dir, methods, imported)
    if problems := out_of_range(config.train, "train."):
        raise ConfigError("; ".join(problems))
    return config, options


def adapter_option(argv: list[str]) -> str | None:
    """Find the folder that `--adapter` names; `parse_evaluate` takes its configuration."""
    return value_of(argv, "--adapter")


def parse_evaluate(
    argv: list[str], methods: Methods, adapter: Config | None = None
) -> tuple[Config | None, EvaluateOptions]:
    """Parse the command line of vidadapt evaluate, over the run's or adapter's configuration.

    Args:
        adapter: configuration of the adapter that `--adapter` names.

    Returns:
        Configuration (None for `--from_scores`) and options.

    Raises:
        ConfigError: unknown or malformed keys, no such run.
        SystemExit: after --help.
    """
    given = argv = spelt(argv)
    imported = import_plugins(argv)
    run_dir, recorded = value_of(argv, "--run_dir"), list[str]()
    if argv and Path(argv[0]).is_dir():
        raise ConfigError(f"{argv[0]}: an evaluation names its folder: --run_dir {argv[0]}")
    if adapter is not None:
        taken = {"adapter", "split", "out", "help", "help_all", "plugins"}
        taken |= {*EVALUATION_KEYS, *ADAPTER_KEYS}
        recorded = adapter.plugins
        _refuse_other_options(given, taken, "--adapter")
    if run_dir is not None:
        saved = Path(run_dir) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(
                f"--run_dir: {saved} does not exist; give a folder made by vidadapt train"
            )
        content = read_yaml(saved, "--run_dir")
        require_imported(content, saved)
        recorded = named_in(content, saved)
        argv = ["--config", str(saved), *argv]
    method, argv, _ = choose_method(argv, methods)
    parser = new_parser(
        "vidadapt evaluate",
        EVALUATE_HELP,
        EvaluateOptions,
        methods,
        method if adapter is None else adapter.method["name"],
        everything=HELP_ALL in argv,
        shown={*EVALUATION_KEYS, *RUN_KEYS, *ADAPTER_KEYS, *PUBLISHED_KEYS},
        skip=frozenset({"fusion"}),
        first="eval",
    )
    if adapter is not None:
        parser.set_defaults(flattened(as_dict(adapter)))
    parsed = parse(parser, argv)
    # A run's config.yaml names the folder of its training, which may have moved.
    options = options_of(EvaluateOptions, parsed, run_dir=run_dir, fusion=parsed.eval.fusion)
    if "method.start" in typed(given):
        raise ConfigError("--method.start: is where a training run begins; leave it out here")
    named = [run_dir, options.adapter, options.from_scores]
    published = parsed.model.head == PUBLISHED[1] and run_dir is None
    if [*named, published or None].count(None) != 3:
        raise ConfigError(
            "give one of --run_dir FOLDER, --adapter FOLDER and --from_scores FILE; or "
            "--model.weights FILE --model.head from_file, for the classifier in that file"
        )
    if published:
        _refuse_of_training(given)
        return config_of(parsed, ".", methods, imported), options
    if options.folds is not None and options.from_scores is None:
        raise ConfigError("--folds: name the scores of each fold with --from_scores 'PATTERN'")
    if options.from_scores is not None:
        _refuse_other_options(
            given, {"from_scores", "folds", "eval.fusion", "out", "plugins"}, "--from_scores"
        )
        return None, options
    home = run_dir if adapter is None else adapter.run_dir
    assert home is not None
    both = list(dict.fromkeys([*recorded, *imported]))
    return config_of(parsed, home, methods, both), options


def parse_published(argv: list[str], methods: Methods) -> Config:
    """Parse the options of a published classifier: `--config`, data, model and views.

    Raises:
        ConfigError: unknown or malformed keys, or no classifier is asked for.
    """
    _, argv, _ = choose_method(argv, methods)
    parser = new_parser("vidadapt predict", "", NoOptions, methods, Config("").method["name"])
    parsed = parse(parser, argv)
    if parsed.model.head != PUBLISHED[1]:
        raise ConfigError(
            "give --adapter FOLDER, or --model.weights FILE --model.head from_file for the "
            "classifier in a weights file"
        )
    _refuse_of_training(argv)
    return config_of(parsed, ".", methods, ())


def parse_backbone(argv: list[str], methods: Methods, adapter: Config | None = None) -> Config:
    """Parse the keys of vidadapt features: `--config`, backbone, clips and precision.

    Args:
        argv: `keys` of `parse_beside_keys`.
        adapter: configuration of an adapter, over which only the precision may be given.

    Raises:
        ConfigError: unknown or malformed keys, keys without effect, or no weights.
    """
    if adapter is not None:
        _refuse_other_options(argv, {PRECISION}, "--adapter")
    elif ignored := sorted(typed(argv) - {"config", *BACKBONE_KEYS}):
        raise ConfigError(
            f"{', '.join(f'--{key}' for key in ignored)}: has no effect on the features of a "
            f"backbone, which takes only --config, {', '.join(f'--{key}' for key in BACKBONE_KEYS)}"
        )
    method, argv, _ = choose_method(argv, methods)
    method = method if adapter is None else adapter.method["name"]
    parser = new_parser("vidadapt features", "", NoOptions, methods, method)
    if adapter is not None:
        parser.set_defaults(flattened(as_dict(adapter)))
    config = config_of(parse(parser, argv), ".", methods, ())
    if adapter is None and config.model.weights is None:
        raise ConfigError(
            "give --adapter DIR; or, for a backbone without one, --model.weights FILE with "
            "--model.backbone and --data.sampling"
        )
    return config


def parse_beside_keys(
    parser: argparse.ArgumentParser, argv: list[str] | None
) -> argparse.Namespace:
    """Parse a command's own options; the words of the configuration's keys become `keys`.

    Args:
        argv: words of the command line; None: those of this process.

    Raises:
        SystemExit: options that the parser refuses.
        ConfigError: see `import_plugins`.
    """
    words = spelt(sys.argv[1:] if argv is None else argv)
    import_plugins(words)
    keys, others = _split_keys(words)
    options = parser.parse_args(others)
    options.keys = keys
    return options


def _split_keys(argv: list[str]) -> tuple[list[str], list[str]]:
    """Take the keys of the configuration out of a command line: their words, and the others.

    >>> _split_keys(["a.mp4", "--model.head", "from_file", "--top", "3", "--data.stride=2"])
    (['--model.head', 'from_file', '--data.stride=2'], ['a.mp4', '--top', '3'])
    """
    own, others, words = list[str](), list[str](), iter(argv)
    for word in words:
        option, equals, _ = word.partition("=")
        section, dot, _ = option.removeprefix("--").partition(".")
        if word.startswith("--") and ((dot and section in SECTIONS) or option == "--config"):
            own.append(word)
            own += [] if equals else itertools.islice(words, 1)
        else:
            others.append(word)
    return own, others


def _refuse_of_training(argv: list[str]) -> None:
    keys = sorted(
        key
        for key in typed(argv)
        if (section := key.partition(".")[0]) in (*SECTIONS, "method")
        and section not in PUBLISHED_SECTIONS
        and "." in key
        and key != "train.precision"
    )
    if keys:
        raise ConfigError(
            f"{', '.join(f'--{key}' for key in keys)}: has no effect on a published classifier "
            "(--model.head from_file), which is not trained; leave it out"
        )


def _refuse_other_options(argv: list[str], taken: set[str], mode: str) -> None:
    if ignored := sorted(f"--{key}" for key in typed(argv) - taken):
        raise ConfigError(
            f"{', '.join(ignored)}: has no effect with {mode}, which takes only "
            + ", ".join(f"--{key}" for key in sorted(taken - {mode[2:], "help"}))
        )
