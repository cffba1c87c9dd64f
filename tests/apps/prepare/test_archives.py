"""Archives among the videos: recognised by their bytes, unpacked as a whole, never overwriting."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import layouts
import numpy as np
import pytest
from commands import prepare

from vidadapt.apps.prepare import archives, unpacking, videos
from vidadapt.apps.prepare.report import Report

needs_rar = pytest.mark.skipif(
    unpacking.tool("rar") is None,
    reason=f"needs one of {', '.join(unpacking.TOOLS)} to unpack rar archives",
)


def rar(members: dict[str, bytes]) -> bytes:
    """A rar archive (format 4) whose members are stored as they are, from the format's layout."""

    def block(kind: int, flags: int, fields: bytes) -> bytes:
        header = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
        return struct.pack("<H", zlib.crc32(header) & 0xFFFF) + header

    blocks = [b"Rar!\x1a\x07\x00", block(0x73, 0, bytes(6))]
    for name, data in members.items():
        unix, version, stored, mode = 3, 20, 0x30, 0o100644
        name = name.replace("/", "\\")  # the format's separator, on all systems
        fields = struct.pack("<IIBII", len(data), len(data), unix, zlib.crc32(data), 0x5A8F6000)
        fields += struct.pack("<BBHI", version, stored, len(name), mode) + name.encode()
        blocks += [block(0x74, 0x8000, fields), data]
    return b"".join([*blocks, block(0x7B, 0x4000, b"")])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is not hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def tar_gz(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def found_in(folder: Path) -> list[archives.Archive]:
    return archives.find(folder, videos.find(folder, Report()).others)


def test_archives_are_known_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "walk.rar").write_bytes(rar({"a.avi": b"a"}))
    (tmp_path / "class" / "named otherwise").write_bytes(rar({"a.avi": b"a"}))
    (tmp_path / "no archive.rar").write_bytes(b"not found")
    for later in ("set.part2.rar", "set.part20.rar", "set.part099.rar"):
        (tmp_path / later).write_bytes(rar({"a.avi": b"a"}))
    (tmp_path / "rest.tgz").write_bytes(tar_gz({"b.avi": b"b"}))
    found = {
        archive.parts[0].relative_to(tmp_path).as_posix(): archive.kind
        for archive in found_in(tmp_path)
    }
    assert found == {"class/named otherwise": "rar", "rest.tgz": "gzip", "walk.rar": "rar"}


@pytest.fixture
def hmdb51(tmp_path: Path) -> tuple[layouts.Layout, dict[str, bytes]]:
    """The official download: a rar of a rar for each class, and what they hold."""
    layout = layouts.hmdb51(tmp_path)
    whole = contents(layout.videos)
    classes: dict[str, dict[str, bytes]] = {}
    for path, data in whole.items():
        classes.setdefault(path.split("/")[0], {})[path] = data
    shutil.rmtree(layout.videos)
    layout.videos.mkdir()
    outer = rar({f"{name}.rar": rar(members) for name, members in classes.items()})
    (layout.videos / "hmdb51_org.rar").write_bytes(outer)
    return layout, whole


def hmdb51_command(layout: layouts.Layout, out: Path) -> list[object]:
    return ["hmdb51", "--annotations", layout.annotations, "--videos", layout.videos, out]


def test_a_rar_is_told_with_the_command_that_unpacks_it(hmdb51, tmp_path: Path) -> None:
    layout, _ = hmdb51
    done = prepare(*hmdb51_command(layout, tmp_path / "out"), "--allow_partial")
    assert done.status == 2
    told = done.told
    archive = layout.videos / "hmdb51_org.rar"
    assert "not one of 33 annotated videos is there" in told
    assert "archives that are not unpacked; run this again with --unpack, or" in told
    command = archives.command(found_in(layout.videos)[0])
    assert f"{archive}: {command}" in told
    assert command.split()[0] == (unpacking.tool("rar") or "unrar")


@needs_rar
def test_the_command_that_is_told_unpacks(hmdb51) -> None:
    layout, whole = hmdb51
    for _ in range(2):  # the rar, then those that were in it
        for archive in found_in(layout.videos):
            command = archives.command(archive)
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
            archive.parts[0].unlink()
    assert contents(layout.videos) == whole


@needs_rar
def test_a_rar_of_rars_is_unpacked_without_overwriting(hmdb51, tmp_path: Path) -> None:
    layout, whole = hmdb51
    mine = next(iter(whole))
    (layout.videos / mine).parent.mkdir()
    (layout.videos / mine).write_bytes(b"mine")
    outer = layout.videos / "hmdb51_org.rar"
    command = hmdb51_command(layout, tmp_path / "out")
    done = prepare(*command, "--allow_partial", "--unpack")
    assert done.status == 0
    assert f"1 archives, {len(whole) - 1} new files, 1 that were there kept" in done.told
    expected = {**whole, mine: b"mine", "hmdb51_org.rar": outer.read_bytes()}
    assert contents(layout.videos) == expected
    lists = contents(tmp_path / "out")
    done = prepare(*command, "--allow_partial", "--unpack")
    assert done.status == 0 and "note: unpacked" not in done.told, "it is not unpacked again"
    again = contents(tmp_path / "out")
    assert {k: v for k, v in again.items() if k != "report.txt"} == {
        k: v for k, v in lists.items() if k != "report.txt"
    }


@needs_rar
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_rar_leaves_no_half_file(hmdb51, damage, tmp_path: Path) -> None:
    layout, whole = hmdb51
    archive = layout.videos / "hmdb51_org.rar"
    data = bytearray(archive.read_bytes())
    if damage == "cut":
        data = data[: len(data) * 2 // 3]
    else:
        data[len(data) * 2 // 3] ^= 0xFF
    archive.write_bytes(data)
    command = hmdb51_command(layout, tmp_path / "out")
    done = prepare(*command, "--allow_partial", "--unpack")
    assert done.status == 1 and "problem: archives that cannot be unpacked" in done.told
    left = contents(layout.videos)
    left.pop("hmdb51_org.rar")
    assert left.items() <= whole.items() and len(left) < len(whole)
    assert not (layout.videos / archives.STAGE).exists()
    assert found_in(layout.videos), "it may be tried again"


@pytest.mark.parametrize("zipped", [False, True])
def test_the_parts_of_something_something_are_joined(zipped, tmp_path: Path) -> None:
    layout = layouts.ssv2(tmp_path)
    whole = contents(layout.videos)
    shutil.rmtree(layout.videos)
    layout.videos.mkdir()
    tar = tar_gz({f"20bn-something-something-v2/{name}": data for name, data in whole.items()})
    size = len(tar) // 3 + 1
    for number in range(3):
        name = f"20bn-something-something-v2-{number:02d}"
        part = tar[number * size : (number + 1) * size]
        if zipped:
            with zipfile.ZipFile(layout.videos / f"{name}.zip", "w") as packed:
                packed.writestr(name, part)
        else:
            (layout.videos / name).write_bytes(part)
    command = ["ssv2", "--annotations", layout.annotations, "--videos", layout.videos]
    command += [tmp_path / "out", "--allow_partial"]
    done = prepare(*command)
    assert done.status == 2
    first = layout.videos / "20bn-something-something-v2-00"
    assert (f"unzip -n {first}.zip" if zipped else f"cat {first} {first.parent}") in done.told
    assert prepare(*command, "--unpack").status == 0
    unpacked = contents(layout.videos / "20bn-something-something-v2")
    assert unpacked == whole
    lines = (tmp_path / "out" / "train.txt").read_text().splitlines()
    assert lines == [
        f"20bn-something-something-v2/{path} {label}" for path, label in layout.samples["train"]
    ]


def test_the_command_told_for_parts_unpacks_them(tmp_path: Path) -> None:
    tar = tar_gz({"v/1.webm": b"one", "v/2.webm": b"two"})
    folder = tmp_path / "my videos"
    folder.mkdir()
    (folder / "20bn-something-something-v2-00").write_bytes(tar[:60])
    (folder / "20bn-something-something-v2-01").write_bytes(tar[60:])
    (archive,) = found_in(folder)
    subprocess.run(archives.command(archive), shell=True, check=True)
    assert {p: d for p, d in contents(folder).items() if p.startswith("v/")} == {
        "v/1.webm": b"one",
        "v/2.webm": b"two",
    }


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    tar = tar_gz({"v/1.webm": b"one"})
    (tmp_path / "20bn-something-something-v2-00").write_bytes(tar[:60])
    (tmp_path / "20bn-something-something-v2-02").write_bytes(tar[60:])
    report = Report()
    archives.unpack(found_in(tmp_path), report, progress=False)
    (line,) = report.problems["archives that cannot be unpacked"]
    assert line.endswith("parts are missing, there are 00, 02")
    assert len(contents(tmp_path)) == 2


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "evil.tgz").write_bytes(tar_gz({"../outside.avi": b"x"}))
    report = Report()
    archives.unpack(found_in(folder), report, progress=False)
    assert not (tmp_path / "outside.avi").exists()
    assert "archives that cannot be unpacked" in report.problems


def test_an_archive_that_nothing_comes_out_of_is_not_taken_for_unpacked(tmp_path: Path) -> None:
    (tmp_path / "videos.tar.gz").write_bytes(tar_gz({}))
    report = Report()
    archives.unpack(archives.find(tmp_path, ["videos.tar.gz"]), report, progress=False)
    (line,) = report.problems["archives that cannot be unpacked"]
    assert line == f"{tmp_path / 'videos.tar.gz'}: no file came out of it; is it whole?"
    assert archives.find(tmp_path, ["videos.tar.gz"]), "it is still to be unpacked"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def film(seed: int) -> bytes:
    """Bytes that hardly become smaller, as a video's."""
    return np.random.default_rng(seed).bytes(3000)


def local_header(data: bytes, name: str) -> int:
    """Where a member of a zip begins: the name comes 30 bytes later (APPNOTE 4.3.7)."""
    return data.find(name.encode()) - 30


def central_header(data: bytes, name: str) -> int:
    return data.rfind(name.encode()) - 46


def with_damage(data: bytes, name: str, damage: str) -> bytes:
    """A zip of which one member is damaged, encrypted or of an unknown method."""
    found = bytearray(data)
    here, there = local_header(data, name), central_header(data, name)
    if damage == "deflate":
        found[here + 30 + len(name) : here + 30 + len(name) + 40] = b"\xff" * 40
    elif damage == "checksum":
        found[there + 16] ^= 1
    elif damage == "encrypted":
        found[here + 6] |= 1
        found[there + 8] |= 1
    elif damage == "method":
        found[here + 8 : here + 10] = found[there + 10 : there + 12] = b"\x63\x00"
    return bytes(found)


@pytest.mark.parametrize("damage", ["deflate", "checksum", "encrypted", "method"])
def test_a_member_that_cannot_be_unpacked_is_named_and_the_rest_is(
    damage: str, tmp_path: Path
) -> None:
    members = {f"walk/{i}.avi": film(i) for i in range(4)}
    (tmp_path / "a.zip").write_bytes(with_damage(zipped(members), "walk/1.avi", damage))
    (tmp_path / "b.tgz").write_bytes(tar_gz({"run/9.avi": film(9)}))
    report = Report()
    archives.unpack(found_in(tmp_path), report, progress=False)
    (line,) = report.problems["archives that cannot be unpacked"]
    assert line.startswith(f"{tmp_path / 'a.zip'}: walk/1.avi: ")
    found = contents(tmp_path)
    assert {p: d for p, d in found.items() if p.endswith(".avi")} == {
        "run/9.avi": film(9),
        **{name: data for name, data in members.items() if name != "walk/1.avi"},
    }
    assert [a.parts[0].name for a in found_in(tmp_path)] == ["a.zip"], "it may be tried again"


def test_prepare_goes_on_with_what_could_be_unpacked(tmp_path: Path) -> None:
    layout = layouts.ucf101(tmp_path)
    whole = contents(layout.videos)
    shutil.rmtree(layout.videos)
    layout.videos.mkdir()
    lost = next(iter(whole))
    damaged = with_damage(zipped(whole), lost, "encrypted")
    (layout.videos / "UCF101.zip").write_bytes(damaged)
    command = ["ucf101", "--annotations", layout.annotations, "--videos", layout.videos]
    done = prepare(*command, tmp_path / "out", "--allow_partial", "--unpack")
    assert done.status == 1
    (line,) = done.listed("problem: archives that cannot be unpacked")
    assert f"UCF101.zip: {lost}: " in line
    assert set(contents(layout.videos)) == {*whole, "UCF101.zip"} - {lost}
    assert (tmp_path / "out" / "prepared.json").is_file()


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_much_more_than_an_archive_may_hold_comes_out_only_when_allowed(
    kind: str, tmp_path: Path
) -> None:
    size = unpacking.FLOOR + 1
    bomb = {"a/black.avi": bytes(size)}
    (tmp_path / f"bomb.{kind}").write_bytes(zipped(bomb) if kind == "zip" else tar_gz(bomb))
    (tmp_path / "good.zip").write_bytes(zipped({"a/1.avi": film(1)}))
    report = Report()
    archives.unpack(found_in(tmp_path), report, progress=False)
    (line,) = report.problems["archives that cannot be unpacked"]
    assert f"bomb.{kind}: " in line and "--unpack_limit" in line
    assert set(contents(tmp_path)) == {f"bomb.{kind}", "good.zip", "a/1.avi"}
    archives.unpack(found_in(tmp_path), report, limit=2 * size, progress=False)
    assert (tmp_path / "a" / "black.avi").stat().st_size == size
    assert found_in(tmp_path) == []


def test_what_comes_out_of_archives_in_archives_is_bounded_in_all(tmp_path: Path) -> None:
    inner = {f"{i}.zip": zipped({f"{i}.avi": bytes(unpacking.FLOOR // 3)}) for i in range(4)}
    (tmp_path / "outer.zip").write_bytes(zipped(inner, zipfile.ZIP_STORED))
    report = Report()
    archives.unpack(found_in(tmp_path), report, progress=False)
    assert len(report.problems["archives that cannot be unpacked"]) == 2
    assert len([name for name in contents(tmp_path) if name.endswith(".avi")]) == 2


def test_archives_too_deep_in_each_other_are_reported(tmp_path: Path) -> None:
    data = film(0)
    for depth in range(30, 0, -1):
        data = zipped({f"{depth}.zip" if depth < 30 else "a.avi": data})
    (tmp_path / "0.zip").write_bytes(data)
    report = Report()
    archives.unpack(found_in(tmp_path), report, progress=False)
    (line,) = report.problems["archives that cannot be unpacked"]
    assert line.startswith(f"{tmp_path / f'{archives.MAX_DEPTH}.zip'}: ")
    assert set(contents(tmp_path)) == {"0.zip"}


def test_damage_to_the_checksum_of_a_tar_gz_is_found(tmp_path: Path) -> None:
    data = bytearray(tar_gz({"a.avi": film(0), "b.avi": film(1)}))
    for damaged, place in (("crc", len(data) - 8), ("size", len(data) - 4)):
        other = bytearray(data)
        other[place] ^= 1
        (tmp_path / f"{damaged}.tgz").write_bytes(other)
    plain = bytearray(gzip.decompress(data))
    plain[plain.find(b"b.avi")] ^= 1  # a header, behind which tarfile sees the end
    (tmp_path / "header.tar").write_bytes(plain)
    (tmp_path / "trailing.tgz").write_bytes(data + b"what gunzip passes over")
    report = Report()
    archives.unpack(found_in(tmp_path), report, progress=False)
    lines = report.problems["archives that cannot be unpacked"]
    assert {Path(line.split(": ")[0]).name for line in lines} == {
        "crc.tgz",
        "size.tgz",
        "header.tar",
    }
    assert (tmp_path / "b.avi").read_bytes() == film(1)


@pytest.mark.parametrize("what", ["bomb", "error", "sound"])
def test_a_program_is_held_to_the_same_bounds(what: str, tmp_path: Path, monkeypatch) -> None:
    """A stand-in for unrar, which writes whatever it is told to."""
    does = {
        "bomb": f"head -c {unpacking.FLOOR + 1} /dev/zero > $6/a.avi; sleep 60",
        "error": "echo one > $6/a.avi; echo 'a.avi: checksum error'; echo; exit 3",
        "sound": "echo one > $6/a.avi",
    }[what]
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "unrar"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(unpacking, "_LOOK", 0.05)
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "walk.rar").write_bytes(rar({"a.avi": b"one"}))
    report = Report()
    archives.unpack(found_in(folder), report, progress=False)
    assert (folder / "a.avi").exists() == (what == "sound")
    lines = report.problems.get("archives that cannot be unpacked", [])
    assert len(lines) == (what != "sound")
    assert all(f"{folder / 'walk.rar'}: " in line for line in lines)
    assert what != "error" or "checksum error" in lines[0]


@pytest.mark.parametrize("seed", range(3))
def test_archives_damaged_anyhow_leave_sound_files_or_a_report(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    members = {f"walk/{i}.avi": film(i) for i in range(3)}
    sound = {
        "zip": zipped(members),
        "stored.zip": zipped(members, zipfile.ZIP_STORED),
        "tgz": tar_gz(members),
        "tar": gzip.decompress(tar_gz({"of a tar.avi": film(7)})),  # which has no checksum
        "lzma.zip": zipped(members, zipfile.ZIP_LZMA),
        "bz2.zip": zipped(members, zipfile.ZIP_BZIP2),
        "nested.zip": zipped({"in.zip": zipped(members), "in.tgz": tar_gz(members)}),
    }
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in sound.items():
            damaged = bytearray(data)
            for _ in range(int(rng.integers(1, 4))):
                if rng.integers(2):
                    damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
                else:
                    at, length = int(rng.integers(len(damaged))), int(rng.integers(1, 40))
                    damaged[at : at + length] = rng.bytes(length * int(rng.integers(2)))
            (folder / name).write_bytes(damaged)
        report = Report()
        archives.unpack(found_in(folder), report, progress=False)
        for path, data in contents(folder).items():
            if path not in sound and path in members:
                assert data == members[path]
        shutil.rmtree(folder)
