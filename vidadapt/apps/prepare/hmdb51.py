"""HMDB51, as downloaded (stabilised copies have the same names):

    ANNOTATIONS/                      VIDEOS/
      brush_hair_test_split1.txt        brush_hair/
      brush_hair_test_split2.txt          April_09_brush_hair_u_nm_np1_ba_goo_0.avi
      brush_hair_test_split3.txt          ...
      cartwheel_test_split1.txt         cartwheel/
      ...                               ...
      wave_test_split3.txt              wave/

A line of a split file is `NAME.avi VALUE`: 1 train, 2 test, 0 unused. 3,570 training and 1,530 test
videos a split, 70 and 30 of each of the 51 classes, which are numbered by their sorted names.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidadapt.apps.prepare.annotations import (
    Annotations,
    Entry,
    add_once,
    check_counts,
    numbered_lines,
)
from vidadapt.apps.prepare.report import Report
from vidadapt.console import did_you_mean

# fmt: off
CLASSES = (
    "brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive",
    "draw_sword", "dribble", "drink", "eat", "fall_floor", "fencing", "flic_flac", "golf",
    "handstand", "hit", "hug", "jump", "kick", "kick_ball", "kiss", "laugh", "pick", "pour",
    "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse", "run", "shake_hands",
    "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault", "stand",
    "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave",
)
# fmt: on
PER_CLASS = {"train": 70, "test": 30}
# Numbered the other way round in a class list that is passed around with the split files.
OTHERWISE_NUMBERED = (("kick", "kick_ball"), ("sword", "sword_exercise"))
SIDES = {"0": "unused", "1": "train", "2": "test"}
_LINE = re.compile(r"(?P<file>.*\S)\s+(?P<value>[012])")
# Visible body parts, camera motion, people, view, quality, number.
_TAIL = r"_(?:f|u|h|l)_(?:cm|nm)_np[0-9]+_(?:fr|ba|le|ri)_(?:goo|med|bad)_[0-9]+"


def read(folder: Path, split: int, report: Report) -> Annotations:
    """Read the split files `<class>_test_split<N>.txt` of one split: `train` and `test`.

    Entries are ordered by class, then as in the class's file. An entry's group is the film it was
    cut from, which may be one of several classes (see `film`). In the official splits no class has
    a film on both sides, but many films are on both sides in different classes (in split 1, 133
    films, with 457 of the 1,530 test videos).

    Args:
        folder: holds the split files.
        split: 1, 2 or 3.
        report: gets classes without a file, files of other sets, unusable lines, and counts that
            differ.

    Raises:
        ValueError: no split file of HMDB51.
    """
    ending = f"_test_split{split}.txt"
    files = {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
    if not files.keys() & set(CLASSES):
        raise ValueError(
            f"{folder} holds no split files such as {CLASSES[0]}{ending}; expected the folder "
            "that test_train_splits.rar unpacks to"
        )
    for name in sorted(files.keys() - set(CLASSES)):
        hint = did_you_mean(name, CLASSES)
        line = f"{files[name].name}: HMDB51 has no class {name!r}, the file is left out; {hint}"
        report.problem("split files of another set", line.rstrip("; "))
    sides: dict[str, list[Entry]] = {side: [] for side in SIDES.values()}
    for label, name in enumerate(CLASSES):
        if name not in files:
            report.lack("missing split files", f"{folder / name}{ending}")
            continue
        of_class = _read_file(files[name], name, label, report)
        for side, found in of_class.items():
            sides[side] += found
            what = f"{files[name].name}: {side} {len(found)}"
            if side in PER_CLASS:
                report.compare("official counts by class", what, len(found), PER_CLASS[side])
    for first, second in OTHERWISE_NUMBERED:
        report.note(
            "classes with other numbers elsewhere",
            f"{first} is {CLASSES.index(first)} and {second} {CLASSES.index(second)} here, by "
            "sorted names; some class lists have them the other way round",
        )
    annotations = Annotations(
        dataset="hmdb51",
        label_names=CLASSES,
        splits={side: tuple(sides[side]) for side in PER_CLASS},
        expected={side: number * len(CLASSES) for side, number in PER_CLASS.items()},
        unlisted=tuple(entry.key for entry in sides["unused"]),
    )
    _note_shared_films(annotations, report)
    return check_counts(annotations, report)


def film(stem: str, name: str) -> str | None:
    """Return the film that a video of class `name` was cut from; None: it has no such name.

    It is right for all 6,766 official names.

    >>> film("THE_PROTECTOR_kick_f_cm_np1_fr_bad_53", "kick")
    'THE_PROTECTOR'
    >>> film("Goal_1_&_2_kick_ball_f_cm_np1_fr_goo_2", "kick_ball")
    'Goal_1_&_2'
    >>> film("Goal_1_&_2_kick_ball_f_cm_np1_fr_goo_2", "kick") is None
    True
    """
    match = re.fullmatch(f"(.*)_{re.escape(name)}{_TAIL}", stem)
    return match[1] if match else None


def _read_file(path: Path, name: str, label: int, report: Report) -> dict[str, list[Entry]]:
    """Return the entries of a split file by side: train, test, unused."""
    entries: dict[str, Entry] = {}
    side_of: dict[Entry, str] = {}
    try:
        lines = numbered_lines(path, "a split file; unpack it anew")
    except ValueError as error:
        report.problem("unreadable split files", str(error))
        lines = []
    for source, line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            wanted = "expected 'NAME.avi' and 0, 1 or 2"
            report.problem("unusable lines", f"{source}: {wanted}, got {line!r}")
            continue
        stem = match["file"].removesuffix(".avi")
        group = film(stem, name)
        if group is None:
            wanted = f"expected ..._{name}_... as in the file's name; left out"
            report.problem("names of another class", f"{source}: {match['file']!r}, {wanted}")
            continue
        entry = Entry(f"{name}/{stem}", label, group, source)
        side_of[entry] = SIDES[match["value"]]
        add_once(entries, entry, report)
    found = entries.values()
    return {side: [e for e in found if side_of[e] == side] for side in SIDES.values()}


def _note_shared_films(annotations: Annotations, report: Report) -> None:
    """Note the films that train and test share."""
    trained = {entry.group for entry in annotations.splits["train"]}
    shared = [entry for entry in annotations.splits["test"] if entry.group in trained]
    if shared:
        report.note(
            "films in train and test",
            f"{len({entry.group for entry in shared})} films, each in classes of its own on either "
            f"side, with {len(shared)} of {len(annotations.splits['test'])} test videos",
        )
