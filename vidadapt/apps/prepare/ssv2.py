"""Something-Something V2, as downloaded:

    ANNOTATIONS/                              VIDEOS/
      something-something-v2-labels.json        1.webm
      something-something-v2-train.json         2.webm
      something-something-v2-validation.json    ...
      something-something-v2-test.json          220847.webm

The newer download names the files labels.json, train.json, validation.json and test.json, and puts
them in a folder `labels`; both names are found in both places. Videos may be transcoded (ID.mp4).
168,913 training, 24,777 validation and 27,157 test videos of 174 classes. Published results are on
the validation videos. The test videos have no labels here: their paths are in unlabelled.txt, for
`vidadapt predict OUT/unlabelled.txt --adapter RUN --json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare.annotations import Annotations, Entry, add_once, check_counts
from vidadapt.apps.prepare.report import Report
from vidadapt.console import did_you_mean

OFFICIAL = {"train": 168_913, "val": 24_777, "test": 27_157}
PREFIXES = ("something-something-v2-", "")
PLACES = ("", "labels")
_DECIMAL = re.compile(r"[0-9]+")


def read(folder: Path, report: Report) -> Annotations:
    """Read the official JSON files: splits `train` and `val`.

    A record's label is the id that labels.json gives its template, without the brackets.

    Args:
        folder: holds the files under either of their names, itself or in a sub-folder `labels`.
        report: gets every record that cannot be used, and counts that differ.

    Raises:
        ValueError: a file other than test.json is missing, a file is no JSON of the expected kind,
            or the ids in labels.json are not 0..K-1.
    """
    label_of = _labels(_find(folder, "labels.json", report))
    splits = {
        split: _entries(_find(folder, f"{name}.json", report), label_of, report)
        for split, name in (("train", "train"), ("val", "validation"))
    }
    test_ids = _test_ids(folder, report)
    if test_ids:
        what, official = f"{len(test_ids):,} test videos", OFFICIAL["test"]
        line = f"{what}, officially {official:,}: published results are on the validation list"
        report.note("in no list", line)
        report.compare("official counts", what, len(test_ids), official)
    annotations = Annotations(
        dataset="ssv2",
        label_names=tuple(sorted(label_of, key=label_of.__getitem__)),
        splits=splits,
        expected={split: OFFICIAL[split] for split in splits},
        unlisted=test_ids,
        unlisted_are="test videos",
    )
    return check_counts(annotations, report)


def class_name(template: str) -> str:
    """Return the class name of a template.

    >>> class_name("Taking [one of many similar things on the table]")
    'Taking one of many similar things on the table'
    """
    return template.replace("[", "").replace("]", "").strip()


def _find(folder: Path, name: str, report: Report) -> Path:
    """Find the file under one of its names, in one of its places."""
    wanted = [folder / place / f"{prefix}{name}" for prefix in PREFIXES for place in PLACES]
    found = [path for path in wanted if path.is_file()]
    if not found:
        raise ValueError(
            f"{folder} holds neither {PREFIXES[0]}{name} nor {name}, nor does its sub-folder "
            "labels; expected the folder of the official JSON files"
        )
    for other in found[1:]:
        report.note("more than one copy of a file", f"{found[0]} is read, {other} is not")
    return found[0]


def _json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON: {error}; download or unpack it anew"
        ) from error
    if not isinstance(content, kind):
        wanted = "a list of records" if kind is list else "an object of label names and ids"
        raise ValueError(f"{path} holds a {type(content).__name__}, expected {wanted}")
    return content


def _labels(path: Path) -> dict[str, int]:
    """Return the id of each label name; the ids are a permutation of 0..K-1."""
    content = _json(path, dict)
    ids = [_number(value) for value in content.values()]
    wrong = [f"{name!r}: {value!r}" for name, value in content.items() if _number(value) is None]
    if not content or wrong:
        raise ValueError(f'{path}: expected ids such as "12", got {", ".join(wrong) or "none"}')
    absent = sorted(set(range(len(ids))) - {i for i in ids if i is not None})
    if absent:
        raise ValueError(
            f"{path}: the ids of {len(ids)} labels must be 0..{len(ids) - 1}, each once; missing: "
            f"{', '.join(map(str, absent[:10]))}"
        )
    return {name: int(value) for name, value in content.items()}


def _number(value: object) -> int | None:
    """Return a decimal id that is written as a string or as a number; None: it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else None


def _entries(path: Path, label_of: dict[str, int], report: Report) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    near = cache(partial(did_you_mean, known=tuple(label_of)))  # slow, and needed for few templates
    for source, video, record in _records(path, report):
        template = record.get("template")
        if "template" not in record:
            report.problem("missing keys", f"{source} (id {video}): no 'template'")
        elif not isinstance(template, str):
            line = f"{source} (id {video}): template is {template!r}, expected text"
            report.problem("wrong types", line)
        elif class_name(template) not in label_of:
            hint = near(class_name(template))
            line = f"{source} (id {video}): {template!r}; {hint}"
            report.problem("unknown templates", line.rstrip("; "))
        else:
            entry = Entry(video, label_of[class_name(template)], "", source)
            add_once(entries, entry, report, "duplicate ids")
    return tuple(entries.values())


def _records(path: Path, report: Report) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield source, id and record of every record with a usable id."""
    for number, record in enumerate(_json(path, list), start=1):
        source = f"{path.name}, record {number}"
        if not isinstance(record, dict):
            line = f"{source}: {type(record).__name__}, expected an object"
            report.problem("wrong types", line)
        elif "id" not in record:
            report.problem("missing keys", f"{source}: no 'id'")
        elif _number(record["id"]) is None:
            line = f"{source}: id is {record['id']!r}, expected a decimal number"
            report.problem("wrong types", line)
        else:
            yield source, str(record["id"]), record


def _test_ids(folder: Path, report: Report) -> tuple[str, ...]:
    """Return the ids of the test videos, which have no labels."""
    try:
        path = _find(folder, "test.json", report)
    except ValueError as error:
        report.lack("test ids", str(error))
        return ()
    entries: dict[str, Entry] = {}
    for source, video, _ in _records(path, report):
        add_once(entries, Entry(video, -1, "", source), report, "duplicate ids")
    return tuple(entries)
