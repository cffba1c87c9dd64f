"""Command lines with jsonargparse: the sections of a `Config`, and options of a tool's own."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vidadapt.config import plugins
from vidadapt.config.renamed import file_with_new_keys, new_name
from vidadapt.config.schema import SECTIONS, Config, ConfigError
from vidadapt.config.shipped import config_file
from vidadapt.config.typed import hints_of, misfits, out_of_range
from vidadapt.config.yaml_files import as_yaml, read_yaml, without_key
from vidadapt.console import did_you_mean, printable, printable_lines, require_known

if TYPE_CHECKING:  # imported where it is used: loader processes, which import this room, need none
    from jsonargparse import ArgumentParser, Namespace

HELP_ALL = "--help_all"
START = "--method.start"
# Keys that `--help` lists, in place of over a hundred.
BASIC = frozenset(
    [f"data.{key}" for key in ("dataset", "lists", "root", "train_list", "dev_list", "test_list")]
    + [f"data.{key}" for key in ("label_names", "sampling", "num_frames", "flip", "num_workers")]
    + [f"model.{key}" for key in ("backbone", "weights", "head")]
    + [f"train.{key}" for key in ("epochs", "batch_size", "optimizer", "base_lr", "weight_decay")]
    + [f"train.{key}" for key in ("precision", "recompute", "seed")]
    + ["eval.num_clips", "eval.num_crops", "eval.fusion"]
)

Methods = Mapping[str, Callable[..., None]]
Options = TypeVar("Options")


def spelt(argv: list[str]) -> list[str]:
    """Spell every option with underscores, and `--config=FILE` as two words.

    >>> spelt(["--from-scores=a-b.npz", "--config=a.yaml", "--", "x-y"])
    ['--from_scores=a-b.npz', '--config', 'a.yaml', '--', 'x-y']
    """
    words = []
    for word in argv:
        option, equals, value = word.partition("=")
        if word.startswith("--config="):
            words += [option, value]
        elif word.startswith("--") and len(option) > 2:
            words.append(option.replace("-", "_").replace("__", "--", 1) + equals + value)
        else:
            words.append(word)
    return words


def typed(argv: list[str]) -> set[str]:
    """Keys given on the command line itself, without those of configuration files."""
    return {word[2:].partition("=")[0] for word in argv if word.startswith("--")}


def value_of(argv: list[str], option: str) -> str | None:
    """Find the value of an option before the others can be parsed; None: it is not given."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument(option, dest="value")
    return early.parse_known_args(argv)[0].value


def choose_method(argv: list[str], methods: Methods) -> tuple[str, list[str], tuple[str, ...]]:
    """Find the method that the command line, or its last YAML file that names one, asks for.

    Args:
        argv: from `spelt`.

    Returns:
        The method's name; the words, where each YAML file that names another method is replaced by
        its text without the method, and that of an older version's run by its text with the keys
        of today; and a line for each file that had options for another method.
    """
    argv, files, renewed = list(argv), {}, {}
    for place in range(1, len(argv)):
        if argv[place - 1] == "--config":
            argv[place] = config_file(argv[place])
            content = read_yaml(Path(argv[place]), "--config")
            if "config" in content:
                raise ConfigError(
                    f"--config: {argv[place]}: config: a configuration file names no other"
                )
            section = content.get("method")
            if isinstance(section, dict) and "name" in section:
                files[place] = section
            if "run_dir" in content and file_with_new_keys(content) != content:
                renewed[place] = file_with_new_keys(content)
    name = value_of(argv, "--method.name")
    if name is None:
        name = str([Config("").method, *files.values()][-1]["name"])
    require_known("method.name", name, methods)
    dropped = []
    for place, section in files.items():
        if section["name"] == name:
            continue
        file, argv[place] = argv[place], without_key(Path(argv[place]), "method")
        if options := ", ".join(f"method.{key}" for key in section if key != "name"):
            dropped.append(
                f"{printable(file)}: {printable(options)} left out: options of "
                f"{printable(str(section['name']))}, and method.name is {name}"
            )
    for place, content in renewed.items():
        is_other = place in files and files[place]["name"] != name
        argv[place] = as_yaml(
            {k: v for k, v in content.items() if not (is_other and k == "method")}
        )
    return name, argv, tuple(dropped)


def new_parser(
    prog: str,
    description: str,
    options: type,
    methods: Methods,
    method: str,
    *,
    shown: Container[str] | None = None,
    everything: bool = False,
    skip: frozenset[str] = frozenset(),
    first: str = "data",
) -> ArgumentParser:
    """Make the parser of a tool: its own options, and every key of the configuration.

    Args:
        options: dataclass of the tool's own options.
        method: the chosen one, whose options are keys, too.
        shown: keys that the help lists; default: all.
        everything: make the help of `--help_all`; that of `--help` has the keys of `BASIC`.
        skip: fields of `options` that are no options.
        first: section that --help lists before the others.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(HELP_ALL, action="help", help="show all options, not only the usual ones")
    parser.add_class_arguments(options, skip=set(skip))
    parser.add_argument("--config", action="config", help="YAML file; may be given several times")
    # Imported before the options are parsed, since they may add some: text, or a list in a file.
    parser.add_argument(plugins.OPTION, type=Any, metavar="MODULES", help=plugins.HELP)
    parser.add_argument(
        "--method.name",
        type=str,
        default=Config("").method["name"],
        help=f"one of {', '.join(methods)}",
    )
    parser.add_function_arguments(methods[method], "method", skip={"model"})
    parser.add_argument(
        START,
        type=Any,
        metavar="ADAPTER",
        help="train: adapter of another task with the same backbone, method and options, whose "
        "weights are the start of the method's own; the head is new",
    )
    for name in sorted(SECTIONS, key=lambda name: name != first):
        parser.add_class_arguments(SECTIONS[name], name)
    for action in parser._actions:
        section, _, key = action.dest.partition(".")
        asked = shown is None or section not in ("config", "method", *SECTIONS)
        asked = asked or (shown is not None and action.dest in shown)
        usual = everything or section not in SECTIONS or action.dest in BASIC
        whole_section = section in ("method", *SECTIONS) and not key  # `--data CONFIG`
        if not (asked and usual) or (whole_section and not everything):
            action.help = argparse.SUPPRESS
        elif action.default not in (None, argparse.SUPPRESS) and action.help is not None:
            action.help += f" [default: {str(action.default).replace('%', '%%')}]"
    return parser


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """Parse the words.

    Raises:
        ConfigError: unknown or malformed options, with the known ones that are near.
    """
    try:
        return parser.parse_args(argv)
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        said = printable_lines(str(error)).strip()  # it holds what was given
    known = [action.dest for action in parser._actions]
    if group := re.search(r"[Gg]roup '([\w.]+)' does not accept option '([\w.]+)'", said):
        unknown = [f"{group.group(1)}.{group.group(2)}"]
    else:
        unknown = re.findall(r"--([\w.]+)", said) if "nrecognized" in said else []
    hints = {key: new_name(key) or did_you_mean(key, known) for key in unknown}
    raise ConfigError("\n".join([said, *(f"{key}: {hint}" for key, hint in hints.items() if hint)]))


def options_of(of: type[Options], parsed: Namespace, **more: Any) -> Options:
    """Make the dataclass of a tool's own options from what was parsed, and from `more`.

    Raises:
        ConfigError: a number is outside the range of its field.
    """
    options = of(**{**{key: parsed[key] for key in hints_of(of) if key in parsed}, **more})
    if problems := out_of_range(options, "--"):
        raise ConfigError("; ".join(problems))
    return options


def config_of(parsed: Namespace, run_dir: str, methods: Methods, imported: Sequence[str]) -> Config:
    """Make the configuration, and refuse null where it means nothing: jsonargparse accepts it.

    Args:
        imported: the plug-ins of the command, see `plugins.import_plugins`.

    Raises:
        ConfigError: a value is not of its key's type, or holds a control character.
    """
    from jsonargparse import Namespace

    for name in ("method", *SECTIONS):
        if not isinstance(parsed[name], Namespace):
            raise ConfigError(f"{name}: holds no keys and values; leave it out, or give some")
    inject = methods[require_known("method.name", str(parsed.method.name), methods)]
    start = parsed.method.pop("start", None)
    asked: list[tuple[str, dict[str, Any], Any]] = [("method", {"start": start}, Config)]
    asked += [(name, vars(parsed[name]), of) for name, of in SECTIONS.items()]
    problems = list[str]()
    for name, values, of in [("method", vars(parsed.method), inject), *asked]:
        problems += misfits(values, hints_of(of), f"{name}.")
        problems += [
            f"{name}.{key}: {value!r} holds a control character"
            for key, value in values.items()
            if isinstance(value, str) and value != printable(value)
        ]
    if problems:
        raise ConfigError("; ".join(problems))
    sections = {name: of(**vars(parsed[name])) for name, of in SECTIONS.items()}
    return Config(
        run_dir=run_dir,
        method=vars(parsed.method),
        plugins=list(imported),
        start=start,
        **sections,
    )
