"""YAML files and options become a `Config`, through jsonargparse.

A run is described by one YAML file plus dotted overrides (`--train.epochs 10`). `--help` shows the
options of the method that was chosen.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from vidadapt.config import SECTIONS, Config, ConfigError, as_dict


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
        given = {word.partition("=")[0] for word in argv if word.startswith("--")}
        ignored = sorted(given - {"--from-scores", "--eval.fusion", "--out"})
        if ignored:
            raise ConfigError(
                f"{', '.join(ignored)}: has no effect with --from-scores, which takes only "
                "--eval.fusion and --out"
            )
        return None, options
    return _config(parser, parsed, run_dir), options


def dump(config: Config) -> str:
    """The resolved configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)


def load(path: Path) -> dict[str, Any]:
    """What `dump` wrote, as `as_dict` gives it."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


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
