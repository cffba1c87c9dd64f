"""Read YAML files and options into a `Config`, with jsonargparse.

A run is described by one YAML file plus dotted overrides (`--train.epochs 10`). `--help` shows the
options of the method that was chosen.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from vidadapt.config.schema import SECTIONS, Config, ConfigError, EvalConfig, as_dict
from vidadapt.config.typed import hints_of, misfits
from vidadapt.config.yaml_files import flattened, read_yaml, without_key
from vidadapt.console.naming import did_you_mean, printable, printable_lines, require_known


@dataclass(frozen=True)
class TrainOptions:
    """Options of one training run beside its configuration.

    Attributes:
        resume: continue the run in run_dir.
        profile: only time this many steps.
        dropped: a line for each configuration file that lost options of another method.
    """

    resume: bool
    profile: int | None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of one evaluation beside the run's configuration.

    Attributes:
        run_dir: run folder to evaluate.
        adapter: adapter folder to evaluate, without its run.
        checkpoint: which one of the run; default: `best` if the run chose one on a development
            list, else `last`.
        split: which list.
        out: folder for metrics.json and scores.npz; default: inside the run's folder.
        from_scores: recompute the metrics from this scores.npz, without a model.
        fusion: for `from_scores`.
    """

    run_dir: str | None = None
    adapter: str | None = None
    checkpoint: Literal["best", "last"] | None = None
    split: Literal["test", "dev"] = "test"
    out: str | None = None
    from_scores: str | None = None
    fusion: Literal["softmax", "logits"] = "softmax"


@dataclass(frozen=True)
class BrowseOptions:
    """Options of a look at the data beside the configuration of the training run.

    Attributes:
        list_path: list to look at.
        out: folder for index.html and sheet.png; default: browse/<name of the list>.
        clips_per_class: how many videos of each class, chosen by train.seed.
        classes: how many classes, the first ones; default: all.
        epochs: number of epochs, from 0 on, whose training views of each video are shown.
        evaluation: also show the centre view, as validation sees it.
        thumb: side of a frame on the page in pixels; default: one that keeps it near 20 MB.
    """

    list_path: str
    out: str | None
    clips_per_class: int
    classes: int | None
    epochs: int
    evaluation: bool
    thumb: int | None


Methods = Mapping[str, Callable[..., None]]

TRAIN_HELP = """Adapt a video transformer to a list of videos.

    python tools/train.py --config configs/ssv2/adaptformer.yaml --run_dir runs/ssv2_adaptformer \\
        --data.lists LISTS_OF_PREPARE --model.weights videomae_vit_b.pth
    torchrun --nproc-per-node 8 tools/train.py --config ... --train.epochs 10
    python tools/train.py --config ... --run_dir ... --profile 20

Any key of the configuration is an option. The options of a method are shown for the chosen one:
    python tools/train.py --method.name full --help
Exit statuses, and failure.json in the run folder: docs/failures.md.
"""

EVALUATE_HELP = """Evaluate on a list, several clips x crops a video, exactly.

    python tools/evaluate.py --run_dir runs/ssv2_adaptformer --eval.num_clips 4 --eval.num_crops 3
    torchrun --nproc-per-node 8 tools/evaluate.py --run_dir runs/ssv2_adaptformer --split dev
    python tools/evaluate.py --run_dir runs/ssv2_adaptformer --data.lists OTHER_LISTS_OF_PREPARE
    python tools/evaluate.py --adapter ssv2_adapter --data.root VIDEOS --data.test_list test.txt \\
        --model.weights videomae_vit_b.pth
    python tools/evaluate.py --from-scores runs/.../scores.npz --eval.fusion logits

The configuration of the run or the adapter is the default of every option below. A run knows its
classes, and where its relative paths begin; --data.lists takes the place of its lists.
Exit statuses, and failure.json in the folder of results: docs/failures.md.
"""

BROWSE_HELP = """Look at a list as a training would see it, before spending days on it.

    python tools/browse.py train.txt --config configs/ssv2/adaptformer.yaml --data.root VIDEOS
    python tools/browse.py LISTS_OF_PREPARE/train.txt --data.rand_augment true --epochs 3
    python tools/browse.py train.txt --config runs/mine/config.yaml

Writes index.html (one file, opens without a network) and sheet.png: for a few videos of each class
the frames after sampling, crop, flip and augmentation, as the same keys of tools/train.py give
them. Label names are those of data.label_names, else of labels.txt beside the list. Videos that
cannot be read are shown with the cause, and the exit status is 1 then (others: docs/failures.md).
"""
BROWSE_KEYS = (
    *("dataset", "lists", "root", "label_names", "sampling", "num_frames", "stride", "crop_size"),
    *("train_crop", "flip", "rand_augment", "random_erasing", "repeated_augmentation", "reader"),
    *("num_workers", "index_dir", "count_timeout", "quarantine", "max_unreadable"),
    "allow_outside_root",
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


def parse_train(argv: list[str], methods: Methods) -> tuple[Config, TrainOptions]:
    """Parse the command line of tools/train.py: configuration and other options.

    Raises:
        ConfigError: unknown or malformed keys, or options that do not go together.
        SystemExit: after --help or --print_config.
    """
    method = _method_name(argv, methods)
    argv, dropped = _without_others(argv, method)
    parser = _parser("tools/train.py", TRAIN_HELP, methods, method)
    parser.add_argument("--run_dir", type=str, required=True, help="folder that the run writes")
    parser.add_argument("--resume", action="store_true", help="continue the run in run_dir")
    parser.add_argument(
        "--profile",
        type=int | None,
        metavar="STEPS",
        help="do not train: time so many steps (20 are plenty), say where their time goes, and "
        "write a trace for ui.perfetto.dev into run_dir/profile",
    )
    parsed = _parse(parser, argv)
    if parsed.profile is not None and parsed.profile < 1:
        raise ConfigError(f"--profile: expected 1 step or more, got {parsed.profile}")
    if parsed.profile is not None and parsed.resume:
        raise ConfigError("--profile: trains nothing that --resume could continue; leave one out")
    options = TrainOptions(parsed.resume, parsed.profile, dropped)
    return _config(parser, parsed, parsed.run_dir, methods), options


def parse_browse(argv: list[str], methods: Methods) -> tuple[Config, BrowseOptions]:
    """Parse the command line of tools/browse.py: training configuration and other options.

    Raises:
        ConfigError: unknown or malformed keys, a number that is too small.
        SystemExit: after --help.
    """
    parser = _empty_parser("tools/browse.py", BROWSE_HELP)
    parser.add_argument("list", type=str, help="`path label` list")
    parser.add_argument("--out", type=str | None, help="folder; default: browse/<name of the list>")
    numbers = {
        "clips-per-class": (int, 3, "videos of each class, chosen by train.seed"),
        "classes": (int | None, None, "only the first N classes"),
        "epochs": (int, 1, "training views of the first N epochs, each video in each"),
        "thumb": (int | None, None, "side of a frame in pixels; default: page of about 20 MB"),
    }
    for name, (kind, default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=text)
    parser.add_argument("--no-evaluation", action="store_true", help="training views only")
    parser.add_argument("--run_dir", type=str, default="", help=argparse.SUPPRESS)
    method = _method_name(argv, methods)
    argv, _ = _without_others(argv, method)  # a look at the data does not depend on them
    _add_sections(parser, methods, method, SECTIONS)
    shown = {"config", "train.seed", *(f"data.{key}" for key in BROWSE_KEYS)}
    for action in parser._actions:
        if action.dest.partition(".")[0] in ("method", *SECTIONS) and action.dest not in shown:
            action.help = argparse.SUPPRESS
    parsed = _parse(parser, argv)
    for name in numbers:
        value = parsed[name.replace("-", "_")]
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: expected 1 or more, got {value}")
    if parsed.train.seed < 0:
        raise ConfigError(f"train.seed: expected 0 or more, got {parsed.train.seed}")
    options = BrowseOptions(
        parsed.list,
        parsed.out,
        parsed.clips_per_class,
        parsed.classes,
        parsed.epochs,
        not parsed.no_evaluation,
        parsed.thumb,
    )
    return _config(parser, parsed, parsed.run_dir, methods), options


def adapter_option(argv: list[str]) -> str | None:
    """The folder that `--adapter` names; `parse_evaluate` takes its configuration."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--adapter")
    return early.parse_known_args(argv)[0].adapter


def parse_evaluate(
    argv: list[str], methods: Methods, adapter: Config | None = None
) -> tuple[Config | None, EvaluateOptions]:
    """Parse the command line of tools/evaluate.py, over the run's or adapter's configuration.

    Args:
        adapter: configuration of the adapter that `--adapter` names.

    Returns:
        Configuration (None for `--from-scores`) and options.

    Raises:
        ConfigError: unknown or malformed keys, no such run.
        SystemExit: after --help.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--run_dir")
    run_dir = early.parse_known_args(argv)[0].run_dir
    if adapter is not None:
        _refuse_options(
            argv, {"adapter", "split", "out", "help", *EVALUATION_KEYS, *ADAPTER_KEYS}, "--adapter"
        )
    if run_dir is not None:
        saved = Path(run_dir) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(
                f"--run_dir: {saved} does not exist; give a folder made by tools/train.py"
            )
        argv = ["--config", str(saved), *argv]
    parser = _empty_parser("tools/evaluate.py", EVALUATE_HELP)
    parser.add_argument("--run_dir", type=str | None, help="run folder to evaluate")
    parser.add_argument(
        "--adapter", type=str | None, help="adapter folder to evaluate, without its run"
    )
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
    method = _method_name(argv, methods) if adapter is None else adapter.method["name"]
    _add_sections(parser, methods, method, ("eval", "data", "model", "train", "cache"))
    for action in parser._actions:
        section = action.dest.partition(".")[0]
        shown = (*EVALUATION_KEYS, *RUN_KEYS, *ADAPTER_KEYS)
        if section in ("config", "method", *SECTIONS) and action.dest not in shown:
            action.help = argparse.SUPPRESS
    if adapter is not None:
        parser.set_defaults(flattened(as_dict(adapter)))
    parsed = _parse(parser, argv)
    options = EvaluateOptions(
        run_dir,
        parsed.adapter,
        parsed.checkpoint,
        parsed.split,
        parsed.out,
        parsed.from_scores,
        parsed.eval.fusion,
    )
    if [run_dir, options.adapter, options.from_scores].count(None) != 2:
        raise ConfigError("give one of --run_dir FOLDER, --adapter FOLDER and --from-scores FILE")
    if options.from_scores is not None:
        _refuse_options(argv, {"from-scores", "eval.fusion", "out"}, "--from-scores")
        return None, options
    home = run_dir if adapter is None else adapter.run_dir
    assert home is not None
    return _config(parser, parsed, home, methods), options


def _refuse_options(argv: list[str], taken: set[str], mode: str) -> None:
    if ignored := sorted(f"--{key}" for key in typed(argv) - taken):
        raise ConfigError(
            f"{', '.join(ignored)}: has no effect with {mode}, which takes only "
            + ", ".join(f"--{key}" for key in sorted(taken - {mode[2:], "help"}))
        )


def _parser(prog: str, description: str, methods: Methods, method: str) -> ArgumentParser:
    parser = _empty_parser(prog, description)
    _add_sections(parser, methods, method, SECTIONS)
    return parser


def _empty_parser(prog: str, description: str) -> ArgumentParser:
    return ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )


def _add_sections(
    parser: ArgumentParser, methods: Methods, method: str, sections: Iterable[str]
) -> None:
    """Add the keys of the configuration, with the options of the chosen method."""
    parser.add_argument("--config", action="config", help="YAML file; may be given several times")
    parser.add_argument(
        "--method.name", type=str, default="adaptformer", help=f"one of {', '.join(methods)}"
    )
    parser.add_function_arguments(methods[method], "method", skip={"model"})
    for name in sections:
        parser.add_class_arguments(SECTIONS[name], name)


def _parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    try:
        return parser.parse_args(argv)
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        said = printable_lines(str(error))  # it holds what was given
        raise ConfigError(_with_near_names(said, parser)) from error


def _with_near_names(message: str, parser: ArgumentParser) -> str:
    known = [action.dest for action in parser._actions]
    group = re.search(r"[Gg]roup '([\w.]+)' does not accept option '([\w.]+)'", message)
    if group:
        unknown = [f"{group.group(1)}.{group.group(2)}"]
    else:
        unknown = re.findall(r"--([\w.]+)", message) if "nrecognized" in message else []
    hints = {key: did_you_mean(key, known) for key in unknown}
    said = [f"{key}: {hint}" for key, hint in hints.items() if hint]
    return "\n".join([message.strip(), *said])


def _method_name(argv: list[str], methods: Methods) -> str:
    """The method that the command line or the last YAML file names; its options are added next."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--method.name", dest="name")
    early.add_argument("--config", action="append", default=[])
    known = early.parse_known_args(argv)[0]
    name = known.name
    for file in reversed(known.config):
        content = read_yaml(Path(file), "--config")
        if "config" in content:
            raise ConfigError(f"--config: {file}: config: a configuration file names no other")
        method = content.get("method")
        if name is None and isinstance(method, dict) and "name" in method:
            name = str(method["name"])
    return require_known("method.name", "adaptformer" if name is None else name, methods)


def _without_others(argv: list[str], method: str) -> tuple[list[str], tuple[str, ...]]:
    """Leave the method out of each YAML file of the command line that names another one.

    Returns:
        The words, with such a file's text in place of its name; a line for each that lost options.
    """
    words, dropped, left = [], [], iter(argv)
    for word in left:
        option, given, file = word.partition("=")
        if option != "--config":
            words.append(word)
            continue
        file = file if given else next(left, "")
        section = read_yaml(Path(file), "--config").get("method") if file else None
        if not isinstance(section, dict) or section.get("name", method) == method:
            words += [option, file] if file else [word]
            continue
        words += [option, without_key(Path(file), "method")]
        if options := ", ".join(f"method.{key}" for key in section if key != "name"):
            dropped.append(
                f"{printable(file)}: {printable(options)} left out: options of "
                f"{printable(str(section['name']))}, and method.name is {method}"
            )
    return words, tuple(dropped)


def typed(argv: list[str]) -> set[str]:
    """The keys given on the command line itself, without those of configuration files."""
    return {word[2:].partition("=")[0] for word in argv if word.startswith("--")}


def _config(parser: ArgumentParser, parsed: Namespace, run_dir: str, methods: Methods) -> Config:
    """Make the configuration, and refuse null where it means nothing: jsonargparse accepts it.

    Raises:
        ConfigError: a value is not of its key's type, or holds a control character.
    """
    for name in ("method", *SECTIONS):
        if not isinstance(parsed[name], Namespace):
            raise ConfigError(f"{name}: holds no keys and values; leave it out, or give some")
    made = parser.instantiate(parsed)
    inject = methods[require_known("method.name", str(parsed.method.name), methods)]
    given = {
        name: (vars(getattr(made, name)), hints_of(section)) for name, section in SECTIONS.items()
    }
    given["method"] = vars(parsed.method), hints_of(inject)
    problems = []
    for name, (values, hints) in given.items():
        problems += misfits(values, hints, f"{name}.")
        problems += [
            f"{name}.{key}: {value!r} holds a control character"
            for key, value in values.items()
            if isinstance(value, str) and value != printable(value)
        ]
    if problems:
        raise ConfigError("; ".join(problems))
    return Config(
        run_dir=run_dir,
        method=vars(parsed.method),
        data=made.data,
        model=made.model,
        train=made.train,
        eval=made.eval,
        cache=made.cache,
    )
