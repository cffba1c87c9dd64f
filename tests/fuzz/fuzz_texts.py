"""Lists, label names, quarantines and configurations, made by hypothesis and by damage to texts."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz_attempts import RIGHT, Defect, Job, Tally, judged, same
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from mutations import mutated

from vidadapt import methods
from vidadapt.config import Config, ConfigError, DataConfig, TrainConfig, check
from vidadapt.config.command_line import parse_train
from vidadapt.config.yaml_files import dump
from vidadapt.data import resolve
from vidadapt.lists import ListError, Sample, read_label_names, read_list, read_quarantine

CORPUS = Path(__file__).parent / "corpus"
SHIPPED = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
EXAMPLES = 25  # inputs of one job
CLASSES = 7

words = st.text(
    alphabet=string.ascii_letters + string.digits + " ._-#[](),;&'\"/\\é視", max_size=20
)
any_text = st.text(max_size=40)
places = st.sampled_from(["", "../", "/", "/root/", "a/../", "./", "~/", "a\\..\\", "//", "\ufeff"])
paths = st.builds("".join, st.tuples(places, st.one_of(words, any_text)))
numbers = st.integers(0, 1 << 40)  # of which damage is made
labels = st.one_of(
    st.integers(-2, CLASSES + 1).map(str),
    st.sampled_from(["label", "Class", "1.5", "1e3", "٣", "+1", "1_0", "9" * 5000, "0x1", ""]),
    any_text,
)
separators = st.sampled_from([" ", "\t", ",", " , ", "   ", "", "\u00a0", "|"])
lines = st.one_of(st.builds("".join, st.tuples(paths, separators, labels)), any_text)
ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\v", "\u2028"])
good_lines = st.builds(
    "{}{}{}\n".format, words, st.sampled_from([" ", "\t", ",", " , "]), st.integers(0, CLASSES - 1)
)
good_texts = st.lists(good_lines, min_size=1, max_size=6).map("".join)
texts = good_texts | st.lists(st.builds("".join, st.tuples(lines, ends)), max_size=12).map("".join)


def examples(job: Job, strategy: st.SearchStrategy[Any], test: Callable[[Any], None]) -> None:
    """Give `EXAMPLES` inputs to a test; a failing one is made small and named in the error."""

    @seed(job.seed * 1_000_003 + job.number)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        test(example)

    run()


def text_or_bytes(valid: bytes) -> st.SearchStrategy[bytes]:
    """Texts by the grammar above, and damaged valid ones."""
    return st.one_of(
        texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
        numbers.map(lambda number: mutated(valid, np.random.default_rng(number))),
    )


def slow_list(data: bytes, root: str) -> list[Sample] | None:
    """What a list says, read letter by letter; None: an error."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    found: list[Sample] = []
    first = True
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = line.strip()
        if not line:
            continue
        end = len(line)
        while end and line[end - 1] not in " \t,":
            end -= 1
        label, start = line[end:], end
        commas = 0
        while start and line[start - 1] in " \t,":
            if line[start - 1] == ",":
                if commas:
                    break
                commas += 1
            start -= 1
        path = line[:start] if line[:start].strip(" \t,") else ""
        was_first = first
        first = False
        if (
            was_first
            and path
            and label.lower() in (*("label", "labels", "label_id", "class", "class_id", "target"),)
        ):
            continue
        digits = label.removeprefix("-")
        if not path or not digits or any(c not in "0123456789" for c in digits):
            return None
        if len(digits) > 18 or not 0 <= int(label) < CLASSES:
            return None
        if any(
            (ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in path
        ):
            return None
        parts = path.split("/")
        if ".." in parts or (path.startswith("/") and not f"{path}/".startswith(f"{root}/")):
            return None
        key = _normal(path)
        if any(_normal(sample.path) == key for sample in found):
            return None
        found.append(Sample(path, int(label)))
    return found or None


def _normal(path: str) -> str:
    kept = [part for part in path.split("/") if part not in ("", ".")]
    # POSIX: two slashes at the start, and no third, are not one.
    lead = "//" if path.startswith("//") and not path.startswith("///") else path[:1]
    return (lead if path.startswith("/") else "") + "/".join(kept)


def check_list(job: Job, scratch: Path, tally: Tally) -> None:
    file = scratch / "list.txt"

    def test(data: bytes) -> None:
        file.write_bytes(data)
        outcome, samples = judged(
            lambda: read_list(file, "/root", CLASSES), (ListError,), str(file)
        )
        expected = slow_list(data, "/root")
        if (expected is None) != (samples is None):
            raise Defect(f"read as {samples}, where {expected} is right")
        same(samples, expected, "samples")
        if samples is not None:
            judged(lambda: read_list(file, scratch, CLASSES), (ListError,), str(file))
        tally.outcomes[outcome] += 1

    examples(job, text_or_bytes((CORPUS / "list.txt").read_bytes()), test)


def check_names(job: Job, scratch: Path, tally: Tally) -> None:
    """Files of label names and quarantines."""
    file = scratch / "names.txt"

    def test(data: bytes) -> None:
        file.write_bytes(data)
        outcome, names = judged(lambda: read_label_names(file), (ListError,), str(file))
        if names is not None:
            text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            same(names, [line.strip() for line in text.rstrip().split("\n")], "names")
            same(len(set(names)), len(names), "different names")
        tally.outcomes[outcome] += 1
        judged(lambda: read_quarantine(file), (ListError,), str(file))

    examples(job, text_or_bytes((CORPUS / "labels.txt").read_bytes()), test)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    words,
    any_text,
    st.sampled_from(["!!python/object/apply:os.getcwd []", "${oc.env:HOME}", "null", "~", "1e400"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
FIELDS = [
    *(f"data.{name}" for name in DataConfig.__dataclass_fields__),
    *(f"train.{name}" for name in TrainConfig.__dataclass_fields__),
    *("eval.fusion", "eval.num_clips", "model.backbone", "model.position_grid", "cache.max_gb"),
    *("method.name", "method.bottleneck", "data", "train", "method", "config", "class_path"),
]
pairs = st.tuples(st.sampled_from(FIELDS) | words, values)
# Of each kind of value, what must come out as it went in.
sound = st.fixed_dictionaries(
    {},
    optional={
        "train.epochs": st.integers(20, 10**6),
        "train.base_lr": st.floats(0, 1e6),
        "train.optimizer": st.sampled_from(["sgd", "adamw"]),
        "data.root": st.text(string.ascii_letters + "/._-", min_size=1).filter(
            lambda text: text not in ("-", ".") and yaml.safe_load(text) == text
        ),
        "data.flip": st.none() | st.booleans(),
        "data.num_frames": st.none() | st.integers(1, 64),
        "eval.num_clips": st.none() | st.integers(1, 64),
        "model.position_grid": st.none() | st.lists(st.integers(1, 99), min_size=3, max_size=3),
    },
)


def check_config(job: Job, scratch: Path, tally: Tally) -> None:
    """A configuration that is sound but for some keys, as YAML and as words."""

    def test(example: tuple[dict[str, Any], list[tuple[str, Any]], list[tuple[str, Any]]]) -> None:
        right, in_file, in_words = example
        file = scratch / "config.yaml"
        tree = _nested({"data.train_list": "a.txt", "train.warmup_epochs": 0, **right})
        for key, value in in_file:
            _put(tree, key, value)
        file.write_bytes(yaml.dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
        argv = ["--config", str(file), "--run_dir", "run"]
        for key, value in in_words:
            argv += [f"--{key}", value if isinstance(value, str) else str(value)]
        found = _parsed(argv, scratch, tally)
        if not in_file and not in_words:
            if found is None:
                raise Defect("a sound configuration is refused")
            for key, value in right.items():
                section, _, name = key.partition(".")
                same(getattr(getattr(found, section), name), value, key)

    few = st.lists(pairs, max_size=2)
    examples(job, st.tuples(sound, few, few), test)


def check_yaml(job: Job, scratch: Path, tally: Tally) -> None:
    """Shipped configurations and hostile YAML, damaged."""
    seeds = [file.read_bytes() for file in (*SHIPPED, *sorted(CORPUS.glob("*.yaml")))]
    file = scratch / "config.yaml"

    def test(example: tuple[bytes, int]) -> None:
        data, number = example
        file.write_bytes(mutated(data, np.random.default_rng(number)) if number % 4 else data)
        words = ["--config", str(file), "--run_dir", "run", "--data.train_list", "a.txt"]
        _parsed(words, scratch, tally)

    examples(job, st.tuples(st.sampled_from(seeds), numbers), test)


def _parsed(argv: list[str], scratch: Path, tally: Tally) -> Config | None:
    """The configuration of a command line, if it is one; written and read again it is the same."""
    errors = (ConfigError, ValueError, SystemExit)
    outcome, found = judged(lambda: parse_train(argv, methods.METHODS), errors)
    if found is not None:
        config, _ = found
        again = scratch / "again.yaml"
        again.write_text(dump(config), encoding="utf-8")
        read, _ = parse_train(
            ["--config", str(again), "--run_dir", config.run_dir], methods.METHODS
        )
        if read != config:  # but for numbers that are none, and equal nothing
            same(repr(read), repr(config), "the configuration, written and read again")
        outcome, _ = judged(lambda: check(config, 1), (ConfigError,))
        if outcome == RIGHT:
            judged(lambda: resolve(config.data, config.eval), (ValueError, ListError, ImportError))
    tally.outcomes[outcome] += 1
    return None if found is None else found[0]


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        _put(tree, key, value)
    return tree


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if name and isinstance(tree.setdefault(section, {}), dict):
        tree[section][name] = value
    else:
        tree[key] = value
