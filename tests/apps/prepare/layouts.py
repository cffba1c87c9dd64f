"""Miniature copies of the official downloads: real names and quirks, generated videos.

Each function writes `annotations/` and `videos/` below a folder. Names, values and layouts are
those of the originals; which videos there are is a choice, and every video's content is its own.
Readers of annotations alone are tested without them (`with_videos`).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vidadapt.apps.synthetic import write_video
from vidadapt.lists import read_label_names

DATA_LISTS = Path(__file__).parents[3] / "data_lists"


@dataclass(frozen=True)
class Layout:
    """A miniature download.

    Attributes:
        annotations: folder of the annotation files.
        videos: folder of the videos.
        samples: split -> (path below `videos`, label), in the order of the annotations.
    """

    annotations: Path
    videos: Path
    samples: dict[str, list[tuple[str, int]]]


def ssv2_names() -> list[str]:
    return read_label_names(DATA_LISTS / "ssv2" / "labels.txt")


def hmdb51_names() -> list[str]:
    return read_label_names(DATA_LISTS / "hmdb51" / "labels.txt")


def ucf101_names() -> list[str]:
    return read_label_names(DATA_LISTS / "ucf101" / "labels.txt")


def small_video(path: Path, num_frames: int = 4) -> None:
    """A video whose content its name decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    write_video(path, rng.integers(0, 256, (num_frames, 32, 48, 3), dtype=np.uint8), fps=12)


# id, template, what fills its brackets. The first two are real records, and so is every bracket.
SSV2_RECORDS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "train": (
        ("78687", "Holding [something] next to [something]", ("potato", "vicks vaporub bottle")),
        ("42326", "Pushing [something] from left to right", ("a cup",)),
        ("100904", "Pushing [something] from right to left", ("a Müsli bowl",)),
        ("7", "Putting [number of] [something] onto [something]", ("3", "pens", "a book")),
        (
            "220845",
            "Taking [one of many similar things on the table]",
            ("a pen out of many pens on the table",),
        ),
        ("16", "Pushing [something] from left to right", ("a phone",)),
        ("118", "Pushing [something] from right to left", ("a phone",)),
        ("2204", "Pushing [something] from left to right", ("a box",)),
        ("30999", "Pushing [something] from right to left", ("a box",)),
        ("4", "Tearing [something] into two pieces", ("paper",)),
    ),
    "validation": (
        ("74225", "Spinning [something] that quickly stops spinning", ("cube",)),
        ("116154", "Showing [something] on top of [something]", ("clay box", "wallet")),
        ("5", "Pushing [something] from left to right", ("a 3€ coin",)),
        ("998", "Trying to bend [something unbendable] so nothing happens", ("a spoon",)),
    ),
}
SSV2_TEST_IDS = ("1420", "166429", "3")


def ssv2_label(template: str) -> int:
    return ssv2_names().index(template.replace("[", "").replace("]", ""))


def ssv2(
    folder: Path,
    *,
    naming: Literal["official", "plain"] = "official",
    below: str = "",
    suffix: Literal[".webm", ".mp4"] = ".webm",
    with_videos: bool = True,
) -> Layout:
    """The JSON files in `annotations/` (or in its sub-folder `below`), videos named by id."""
    files = folder / "annotations" / below
    files.mkdir(parents=True, exist_ok=True)
    prefix = "something-something-v2-" if naming == "official" else ""
    names = ssv2_names()
    # Official files: ids are strings of decimals, labels too.
    write_json(files / f"{prefix}labels.json", {name: str(i) for i, name in enumerate(names)})
    samples: dict[str, list[tuple[str, int]]] = {}
    for split in ("train", "validation"):
        records = []
        for video, template, things in SSV2_RECORDS[split]:
            label = template
            for thing in things:
                start, end = label.index("["), label.index("]")
                label = label[:start] + thing + label[end + 1 :]
            record = {"id": video, "label": label.lower(), "template": template}
            records.append({**record, "placeholders": list(things)})
            sample = (f"{video}{suffix}", ssv2_label(template))
            samples.setdefault({"validation": "val"}.get(split, split), []).append(sample)
        write_json(files / f"{prefix}{split}.json", records)
    write_json(files / f"{prefix}test.json", [{"id": video} for video in SSV2_TEST_IDS])
    ids = [record[0] for records in SSV2_RECORDS.values() for record in records]
    for video in (*ids, *SSV2_TEST_IDS) if with_videos else ():
        small_video(folder / "videos" / f"{video}{suffix}")
    return Layout(folder / "annotations", folder / "videos", samples)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


# Parts of real names, <film>_<class>_<rest>.avi, and the values in splits 1, 2 and 3: 1 train,
# 2 test, 0 unused.
HMDB51_FILES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "brush_hair": (
        ("April_09", "u_nm_np1_ba_goo_0", "112"),
        ("Aussie_Brunette_Brushing_Hair_II", "u_nm_np1_ba_goo_4", "001"),
        ("Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!", "h_cm_np1_fr_goo_0", "212"),
        ("Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!", "h_cm_np1_le_goo_1", "212"),
        ("Chanta!____THAT_IS_long_blonde_hair!", "u_cm_np1_fr_goo_2", "201"),
        ("can_somebody_just_brush_my_hair!", "u_cm_np2_ri_med_0", "111"),
    ),
    "cartwheel": (
        ("(Rad)Schlag_die_Bank!", "f_cm_np1_le_med_0", "111"),
        ("Beim_Radschlag_Hose_gerissen_(Nick)_xD", "f_cm_np1_ri_med_0", "211"),
        ("Geena_und_die_Radschl_ge___;-)", "f_cm_np1_fr_med_2", "121"),
        ("Geena_und_die_Radschl_ge___;-)", "f_cm_np1_le_med_3", "121"),
        ("Zwei_hoffnungslose_Pflegef_lle_beim_Turnen(Part4)", "f_cm_np1_ri_bad_0", "112"),
        ("jenny_~_rad", "f_cm_np1_ri_med_0", "021"),
    ),
    "climb": (
        ("(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman", "f_cm_np1_ba_med_0", "121"),
        ("(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman", "f_cm_np1_fr_med_4", "121"),
        ("Alban_Hayoz_solo_climb_(klettern)", "f_cm_np1_ba_med_0", "121"),
        ("Amazing_Wall_Climber_(Must_be_Seen_to_Be_Believed!)", "f_cm_np1_ba_bad_1", "211"),
        ("Axel_beim_Klettern_an_der_Unisportwand", "f_cm_np1_ba_med_2", "121"),
        ("Bristol_UCR_roof_climb", "f_cm_np1_ba_bad_1", "021"),
    ),
    "climb_stairs": (
        ("Beginner_Boxing_Lessons_-_Using_Stairs_for_Boxing_Training", "l_cm_np1_ba_med_0", "211"),
        ("Just_Say_NO_to_AQUA_DOTS!", "l_nm_np1_ba_med_0", "111"),
        (
            "Stairs_to_Perpetual_Youth_and_Longevity___Taishan_(Mount_Tai)",
            "f_cm_np1_fr_med_1",
            "122",
        ),
    ),
    "kick": (
        ("50_FIRST_DATES", "f_cm_np1_ba_med_19", "121"),
        ("FOOT_2009_(REMI_GAILLARD)", "f_cm_np1_ba_med_5", "202"),
        ("THE_PROTECTOR", "f_cm_np1_fr_bad_53", "112"),
        ("THE_PROTECTOR", "f_cm_np1_ri_med_40", "100"),
        ("THE_PROTECTOR", "f_nm_np1_ba_bad_17", "012"),
    ),
    "kick_ball": (
        ("Amazing_Soccer_#2", "f_cm_np1_ba_bad_5", "000"),
        ("FOOT_2009_(REMI_GAILLARD)", "f_cm_np1_ba_bad_1", "201"),
        ("Goal_1_&_2", "f_cm_np1_fr_goo_2", "122"),
        ("Goal_1_&_2", "f_cm_np3_ri_med_3", "122"),
    ),
    "shake_hands": (
        ("Anna_Wintour_on_David_Letterman__Part_1", "f_cm_np2_le_med_0", "210"),
        ("Geri_Halliwell_-_Look_At_Me_+_Interview_(Jay_Leno_1999)", "f_cm_np2_le_med_0", "021"),
        ("Jay_Leno_@_David_Letterman", "f_cm_np2_le_med_0", "110"),
        ("Speech_Day_2009_(Part_9)", "f_cm_np2_le_med_2", "120"),
    ),
    "sword": (
        ("Blood_And_Bone_(sword_fight_Scene)", "f_nm_np2_ri_bad_0", "111"),
        ("Blood_And_Bone_(sword_fight_Scene)", "f_nm_np2_ri_med_1", "111"),
        ("Fellowship_4", "u_cm_np1_fr_med_4", "201"),
    ),
    "sword_exercise": (
        ("Blade_Of_Fury_-_Scene_1", "f_cm_np1_fr_med_4", "101"),
        ("Conan_gets_an_upgrade!", "u_cm_np1_ri_med_0", "210"),
        ("Highlander_I_with_Christophe_Lambert_&_Sean_Connery", "f_cm_np2_ba_bad_0", "011"),
    ),
}


def hmdb51(folder: Path, *, split: int = 1, with_videos: bool = True) -> Layout:
    """All three splits' files of nine classes, class folders of .avi; `samples` of one split."""
    annotations, videos = folder / "annotations", folder / "videos"
    annotations.mkdir(parents=True, exist_ok=True)
    samples: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for name, files in HMDB51_FILES.items():
        for number in (1, 2, 3):
            # Every line of the official files ends in a space.
            text = "".join(
                f"{film}_{name}_{rest}.avi {values[number - 1]} \n" for film, rest, values in files
            )
            path = annotations / f"{name}_test_split{number}.txt"
            path.write_text(text, encoding="utf-8")
        for film, rest, values in files:
            file = f"{film}_{name}_{rest}.avi"
            if with_videos:
                small_video(videos / name / file)
            side = {"1": "train", "2": "test"}.get(values[split - 1])
            if side:
                samples[side].append((f"{name}/{file}", hmdb51_names().index(name)))
    return Layout(annotations, videos, samples)


# Classes whose numbers are not those of sorted names, and one whose file names spell it otherwise.
UCF101_CLASSES = {
    "ApplyEyeMakeup": "ApplyEyeMakeup",
    "Hammering": "Hammering",
    "HammerThrow": "HammerThrow",
    "HandstandPushups": "HandStandPushups",
}
UCF101_GROUPS = {1: ("g01",), 8: ("g08",), 15: ("g15",), 22: ("g22", "g25")}


def ucf101(folder: Path, *, split: int = 1, with_videos: bool = True) -> Layout:
    """classInd.txt of all classes, the lists of all three splits, two clips a group; CRLF."""
    annotations, videos = folder / "annotations", folder / "videos"
    annotations.mkdir(parents=True, exist_ok=True)
    names = ucf101_names()
    rows = [f"{i} {name}" for i, name in enumerate(names, start=1)]
    write_crlf(annotations / "classInd.txt", rows)
    samples: dict[str, list[tuple[str, int]]] = {}
    for number in (1, 2, 3):
        held_out = UCF101_GROUPS[7 * number - 6]  # g01-g07, g08-g14, g15-g21 in the real lists
        sides: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for name, spelling in UCF101_CLASSES.items():
            for groups in UCF101_GROUPS.values():
                for group in groups:
                    for clip in ("c01", "c02"):
                        path = f"{name}/v_{spelling}_{group}_{clip}.avi"
                        side = "test" if group in held_out else "train"
                        sides[side].append((path, names.index(name)))
        train = [f"{path} {label + 1}" for path, label in sides["train"]]
        write_crlf(annotations / f"trainlist{number:02d}.txt", train)
        write_crlf(annotations / f"testlist{number:02d}.txt", [path for path, _ in sides["test"]])
        if number == split:
            samples = sides
    for path, _ in samples["train"] + samples["test"] if with_videos else ():
        small_video(videos / path)
    return Layout(annotations, videos, samples)


def write_crlf(path: Path, rows: list[str]) -> None:
    path.write_bytes("".join(f"{row}\r\n" for row in rows).encode())


# label, id, start and end in seconds; ids may begin with "-" or hold "_".
KINETICS_ROWS = {
    "train": (
        ("hurling (sport)", "-0jyTTbWGGM", 10, 20),
        ("hurling (sport)", "a_b-c_d-e_f", 0, 10),
        ("hurling (sport)", "Zx9_Zx9_Zx9", 7, 17),
        ("massaging person's head", "_1234567890", 137, 147),
        ("massaging person's head", "mmmmmmmmmm1", 1000, 1010),
        ("passing American football (in game)", "ppppppppp-1", 3, 13),
        ("passing American football (in game)", "ppppppppp_2", 33, 43),
    ),
    "validate": (
        ("hurling (sport)", "vvvvvvvvvv1", 11, 21),
        ("passing American football (in game)", "vvvvvvvvvv2", 5, 15),
        ("massaging person's head", "vvvvvvvvvv3", 6, 16),
    ),
    "test": (("massaging person's head", "tttttttttt1", 8, 18),),
}


def kinetics(
    folder: Path,
    *,
    folders: Literal["spaces", "underscores", "flat"] = "spaces",
    named: Literal["clip", "id"] = "clip",
    is_cc: bool = True,
    with_videos: bool = True,
) -> Layout:
    """A csv a split; files named by id and times (or by id) in class folders, or in one."""
    annotations, videos = folder / "annotations", folder / "videos"
    annotations.mkdir(parents=True, exist_ok=True)
    names = read_label_names(DATA_LISTS / "kinetics400" / "labels.txt")
    samples: dict[str, list[tuple[str, int]]] = {}
    for split, rows in KINETICS_ROWS.items():
        header = "label,youtube_id,time_start,time_end,split" + (",is_cc" if is_cc else "")
        lines = [header]
        for label, video, start, end in rows:
            lines.append(f"{label},{video},{start},{end},{split}" + (",0" if is_cc else ""))
            stem = f"{video}_{start:06d}_{end:06d}" if named == "clip" else video
            parent = {"spaces": label, "underscores": label.replace(" ", "_")}.get(folders)
            path = f"{parent}/{stem}.mp4" if parent else f"{stem}.mp4"
            if with_videos:
                small_video(videos / path)
            if split != "test":
                sample = (path, names.index(label))
                samples.setdefault({"validate": "val"}.get(split, split), []).append(sample)
        text = "".join(f"{line}\n" for line in lines)
        (annotations / f"{split}.csv").write_text(text, encoding="utf-8")
    return Layout(annotations, videos, samples)
