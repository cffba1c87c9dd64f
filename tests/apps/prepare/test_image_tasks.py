"""VTAB-1k, FGVC and NUS-WIDE on folders made by hand, which hold the traps of the real ones."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from commands import lines_of, prepare
from PIL import Image

from vidadapt.apps.prepare import nuswide, vtab
from vidadapt.lists import label_text, read_label_names, read_list, read_prepared

CONCEPTS = read_label_names(nuswide.LABELS)


def image(path: Path) -> None:
    """An image whose content its path decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).save(path, format="PNG")


# VTAB-1k


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of 6 and 2 images in the place of 800 and 200."""
    numbers = {"train800.txt": 6, "val200.txt": 2, "train800val200.txt": 8}
    monkeypatch.setattr(vtab, "NUMBERS", numbers)


def task(folder: Path, name: str) -> dict[str, list[tuple[str, int]]]:
    """Make a task, with a space in a name; the class of the last number is in test alone."""
    classes = vtab.TASKS[name].num_classes
    train = [(f"images/train800/{n:06d}.jpg", n % (classes - 1)) for n in range(5)]
    train.append(("images/train800/a b 7.jpg", 0))
    val = [(f"images/val200/{n:06d}.jpg", n % (classes - 1)) for n in range(2)]
    test = [(f"images/test/{n:06d}.jpg", n % classes) for n in range(2 * classes)]
    listed = {"train800": train, "val200": val, "train800val200": train + val, "test": test}
    for file, samples in listed.items():
        for path, _ in samples:
            image(folder / name / path)
        text = "".join(f"{path} {label}\n" for path, label in samples)
        (folder / name / f"{file}.txt").write_text(text)
    return listed


@pytest.mark.usefixtures("few")
def test_vtab_becomes_two_folders_a_task(tmp_path: Path) -> None:
    listed = {name: task(tmp_path / "vtab", name) for name in ("kitti", "patch_camelyon")}
    out = tmp_path / "out"
    done = prepare("vtab", tmp_path / "vtab", out, index=True)
    assert done.status == 0, done.told
    for name, lists in listed.items():
        search, final = read_prepared(out / name), read_prepared(out / name / "final")
        assert search.lists == {"train": "train.txt", "dev": "dev.txt", "test": "test.txt"}
        assert final.lists == {"train": "train.txt", "test": "test.txt"}
        assert {search.dataset, final.dataset} == {"vtab"}
        assert Path(search.root) == tmp_path / "vtab" / name
        assert search.manifests["test"] == final.manifests["test"]
        assert search.made_by["group"] == vtab.TASKS[name].group
        for split, file in {"train": "train800", "dev": "val200", "test": "test"}.items():
            assert lines_of(out / name / f"{split}.txt") == lists[file]
        assert lines_of(out / name / "final" / "train.txt") == lists["train800val200"]
        assert not (out / name / "final" / "dev.txt").exists()
        names = [str(n) for n in range(vtab.TASKS[name].num_classes)]
        assert read_label_names(out / name / "labels.txt") == names
    assert "2 of 19 (Natural 0 of 7, Specialised 1 of 4, Structured 1 of 8)" in done.told
    assert "not there: cifar" in done.told
    again = prepare("vtab", tmp_path / "vtab", out, "--tasks", "kitti", index=True)
    assert again.status == 0 and "1 of 19" in again.told


@pytest.mark.usefixtures("few")
def test_a_task_half_there_is_left_out_and_named(tmp_path: Path) -> None:
    for name in ("kitti", "dmlab"):
        task(tmp_path / "vtab", name)
    (tmp_path / "vtab" / "dmlab" / "val200.txt").unlink()
    done = prepare("vtab", tmp_path / "vtab", tmp_path / "out")
    assert done.status == 1 and "dmlab lacks val200.txt" in done.told
    assert (tmp_path / "out" / "kitti" / "final" / "prepared.json").exists()
    assert not (tmp_path / "out" / "dmlab").exists()
    assert prepare("vtab", tmp_path / "vtab", tmp_path / "out", "--allow_partial").status == 0
    absent = prepare("vtab", tmp_path / "vtab", tmp_path / "out", "--tasks", "svhn")
    assert absent.status == 2 and "svhn" in absent.told
    (tmp_path / "vtab" / "kitti" / "test.txt").unlink()
    none = prepare("vtab", tmp_path / "vtab", tmp_path / "new")
    assert none.status == 2 and not (tmp_path / "new").exists()


@pytest.mark.usefixtures("few")
def test_counts_lines_and_the_thousand_of_a_task_are_checked(tmp_path: Path) -> None:
    lists = task(tmp_path / "vtab", "kitti")
    folder = tmp_path / "vtab" / "kitti"
    (folder / "images" / "test" / "000001.jpg").unlink()
    with (folder / "train800.txt").open("a") as file:
        file.write("images/train800/000001.jpg 1\nimages/train800/000002.jpg 4\nno_label.jpg\n")
    changed = [*lists["train800val200"][:-1], (lists["train800val200"][-1][0], 3)]
    text = "".join(f"{path} {label}\n" for path, label in changed)
    (folder / "train800val200.txt").write_text(text)
    done = prepare("vtab", tmp_path / "vtab", tmp_path / "out")
    assert done.status == 1
    assert len(done.listed("problem: unusable lines")) == 2
    assert len(done.listed("problem: duplicate lines")) == 1
    [line] = done.listed("missing: annotated videos without a file")
    assert line.startswith("images/test/000001.jpg (test.txt:2)")
    final = (tmp_path / "out" / "kitti" / "final" / "report.txt").read_text()
    assert "class 3: 1 in train800val200.txt, 0 in" in final
    (folder / "val200.txt").write_text("".join(f"{p} {n}\n" for p, n in lists["val200"][:1]))
    done = prepare("vtab", tmp_path / "vtab", tmp_path / "out")
    assert done.listed("missing: official counts") == ["dev: 1 videos are annotated, officially 2"]


def test_the_tasks_are_nineteen_in_three_groups() -> None:
    groups = [of.group for of in vtab.TASKS.values()]
    numbers = [groups.count(group) for group in ("Natural", "Specialised", "Structured")]
    assert numbers == [7, 4, 8] and len(vtab.TASKS) == 19
    mean = sum(of.num_classes for of in vtab.TASKS.values()) / 19
    assert round(mean * 769) == 38_045  # the published mean of the heads' parameters, ViT-B


# FGVC


def fgvc(folder: Path, images: str, listed: dict[str, dict[str, int]]) -> None:
    for split, of_split in listed.items():
        for name in of_split:
            image(folder / images / name)
        (folder / f"{split}.json").write_text(json.dumps(of_split))


BIRDS = {
    "train": {"0817/a b.jpg": 817, "0295/one.jpg": 295, "0295/two.jpg": 295, "1010/x.jpg": 1010},
    "val": {"0817/c.jpg": 817},
    "test": {"0295/three.jpg": 295, "0817/d 1.jpg": 817},  # the last class has no test image
}


@pytest.mark.parametrize(
    ("name", "images"), [("nabirds", "images"), ("dogs", "Images"), ("cars", "."), ("cub", ".")]
)
def test_fgvc_renumbers_ids_over_all_files(name: str, images: str, tmp_path: Path) -> None:
    fgvc(tmp_path / "set", images, BIRDS)
    image(tmp_path / "set" / "segmentations" / "0817" / "a b.jpg")  # as CUB has beside its images
    done = prepare("fgvc", tmp_path / "set", tmp_path / "out", "--set", name, "--allow_partial")
    prepared = read_prepared(tmp_path / "out")
    assert prepared.lists == {"train": "train.txt", "dev": "dev.txt", "test": "test.txt"}
    assert (prepared.dataset, Path(prepared.root)) == ("fgvc", tmp_path / "set" / images)
    assert done.status == 0, done.told
    assert lines_of(tmp_path / "out" / "train.txt") == [
        ("0817/a b.jpg", 1), ("0295/one.jpg", 0), ("0295/two.jpg", 0), ("1010/x.jpg", 2),
    ]  # fmt: skip
    assert lines_of(tmp_path / "out" / "dev.txt") == [("0817/c.jpg", 1)]
    assert read_label_names(tmp_path / "out" / "labels.txt") == ["295", "817", "1010"]
    assert "1010 (test): none annotated" in done.listed("note: classes without a video")
    assert done.listed("missing: official counts")[0].startswith("3 classes")


def test_fgvc_files_that_are_missing_or_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    fgvc(folder, "images", BIRDS)
    words = ("fgvc", folder, tmp_path / "out", "--set", "cub", "--allow_partial")
    (folder / "test.json").write_text('{"0295/three.jpg": 295, "0295/three.jpg": 817}')
    twice = prepare(*words)
    assert twice.status == 1
    [line] = twice.listed("problem: images named twice in a file")
    assert line.startswith("test.json, entry 2: 0295/three.jpg")
    for text in ("[1]", '{"a.jpg": "one"}', '{"a.jpg": {"b": 1}}', "{", "{}"):
        (folder / "val.json").write_text(text)
        assert prepare(*words).status == 2
    (folder / "val.json").unlink()
    missing = prepare(*words)
    assert missing.status == 2 and "no val.json" in missing.told


# NUS-WIDE


IMAGES = {
    "Train": {
        "actor\\0001_2124494179.jpg": ["person", "sky"],
        "actor\\0002_174174086.jpg": [],
        "zoo\\0001_1.jpg": ["animal"],
        "zoo\\0002_2.jpg": ["animal", "sky"],
        **{f"zoo\\100{n}_{n}.jpg": ["animal"] for n in range(6)},
    },
    "Test": {"zoo\\0003_3.jpg": ["zebra", "animal"], "sky\\0001_5.jpg": []},
}


def nuswide_files(folder: Path, images: str = "Flickr", lists: str = "ImageList") -> None:
    labels = folder / "Groundtruth" / "TrainTestLabels"
    for made in (labels, folder / lists):
        made.mkdir(parents=True)
    for side, of_side in IMAGES.items():
        text = "".join(f"{name}\r\n" for name in of_side)
        (folder / lists / f"{side}Imagelist.txt").write_text(text)
        for concept in CONCEPTS:
            marks = "".join(f"{int(concept in own)}\n" for own in of_side.values())
            (labels / f"Labels_{concept}_{side}.txt").write_text(marks)
        for name in of_side:
            image(folder / images / name.replace("\\", "/"))


def several(path: Path) -> list[tuple[str, str]]:
    samples = read_list(path, path.parent, 81, multi_label=True)
    return [(sample.path, label_text(sample.label)) for sample in samples]


@pytest.mark.parametrize(
    ("images", "lists"), [("Flickr", "ImageList"), ("images", "ImageList/ImageList")]
)
def test_nuswide_keeps_images_without_a_concept(images: str, lists: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "nus", tmp_path / "out"
    nuswide_files(folder, images, lists)
    (folder / images / "zoo" / "0002_2.jpg").unlink()
    words = ("nuswide", folder, out, "--allow_partial")
    done = prepare(*words, "--dev_fraction", 0)
    assert done.status == 0, done.told
    prepared = read_prepared(out)
    assert prepared.multi_label and prepared.dataset == "nuswide"
    number = {name: label for label, name in enumerate(CONCEPTS)}
    more = [f"100{n}_{n}" for n in range(6)]
    assert several(out / "train.txt") == [
        (f"{images}/actor/0001_2124494179.jpg", f"{number['person']},{number['sky']}"),
        (f"{images}/actor/0002_174174086.jpg", "-"),
        *((f"{images}/zoo/{n}.jpg", str(number["animal"])) for n in ["0001_1", *more]),
    ]
    assert several(out / "test.txt")[1] == (f"{images}/sky/0001_5.jpg", "-")
    assert done.listed("note: images without a concept") == [
        "train: 1 of 10 annotated images", "test: 1 of 2 annotated images",
    ]  # fmt: skip
    [gone] = done.listed("missing: annotated videos without a file")
    assert gone.startswith("zoo/0002_2.jpg (TrainImagelist.txt:4)")
    assert "--config nuswide/adaptformer" in done.told
    with_dev = prepare(*words, "--dev_fraction", 0.5)
    assert with_dev.status == 0 and several(out / "dev.txt")
    both = sorted(several(out / "dev.txt") + several(out / "train.txt"))
    assert len(both) == 9 and len(dict(both)) == 9


def test_nuswide_files_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "nus"
    nuswide_files(folder)
    file = folder / "Groundtruth" / "TrainTestLabels" / "Labels_tiger_Test.txt"
    for text, said in (("0\n", "1 lines"), ("0\n2\n", "Labels_tiger_Test.txt:2"), (None, "1 of")):
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        done = prepare("nuswide", folder, tmp_path / "out")
        assert done.status == 2 and said in done.told and "Labels_tiger_Test.txt" in done.told
