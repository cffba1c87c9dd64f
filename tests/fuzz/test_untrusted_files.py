"""Files from strangers: what would run does not, what would take all memory is refused."""

import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_files import _accuracies as accuracies
from fuzz_files import _adapter, _scores

from vidadapt import methods
from vidadapt.config import ConfigError, as_dict
from vidadapt.config.command_line import parse_train
from vidadapt.config.yaml_files import dump, load, read_yaml
from vidadapt.evaluation import load_scores
from vidadapt.lists import ListError, read_quarantine
from vidadapt.models.tensor_files import read_tensors
from vidadapt.runs import RunError, checkpoints
from vidadapt.runs.adapters import read_adapter
from vidadapt.serving import GivenVideo, find_videos
from vidadapt.serving.evaluate_command import check_same_list


class Payload:
    """What pickle runs when it reads this: here, making a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_nothing_in_a_file_is_run(tmp_path):
    marker, payload = tmp_path / "it ran", Payload(tmp_path / "it ran")
    pickle.loads(pickle.dumps(payload))
    assert marker.exists()  # so it would
    marker.unlink()
    torch.save({"model": payload}, tmp_path / "trainer.pt")
    np.savez(tmp_path / "scores.npz", id=np.array([payload], object))
    (tmp_path / "run.yaml").write_text(f"run_dir: !!python/object/apply:os.mkdir ['{marker}']\n")
    for read, errors in (
        (lambda: checkpoints.load_trainer(tmp_path), RunError),
        (lambda: read_tensors(tmp_path / "trainer.pt"), ValueError),
        (lambda: load_scores(tmp_path / "scores.npz"), ValueError),
        (
            lambda: parse_train(["--config", str(tmp_path / "run.yaml")], methods.METHODS),
            ConfigError,
        ),
    ):
        with pytest.raises(errors, match=r"trainer\.pt|scores\.npz|run\.yaml"):
            read()
    assert not marker.exists()


MANY = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    "text",
    [
        MANY,
        "train: &t\n  epochs: 3\n  again: *t\n",
        "data: " + "[" * 5000,
        "data: 2024-99-99\n",
    ],
    ids=["aliases of aliases", "an alias of itself", "depth", "no date"],
)
def test_a_yaml_file_that_grows_without_end_is_an_error(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    for words in ([], ["--method.name", "full"]):
        with pytest.raises(ConfigError, match=r"--config: .*c\.yaml"):
            parse_train(["--config", str(tmp_path / "c.yaml"), *words], methods.METHODS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("data.dataset", "null"), ("train.epochs", "null"), ("train.base_lr", ".nan")),
        *(("method.name", "null"), ("data.root", '"a\\eb"')),
    ],
)
def test_a_value_that_its_key_cannot_have_is_an_error(tmp_path, key, value):
    section, _, name = key.partition(".")
    (tmp_path / "c.yaml").write_text(f"{section}: {{{name}: {value}}}\n")
    said = rf"{key}: (None|nan) where .* is expected|'None' is unknown|holds a control character"
    with pytest.raises(ValueError, match=said):
        parse_train(
            ["--config", str(tmp_path / "c.yaml"), "--run_dir", str(tmp_path)], methods.METHODS
        )


@pytest.mark.parametrize("content", ["", "[]"])
@pytest.mark.parametrize("section", ["data", "model", "train", "eval", "cache"])
def test_a_section_that_is_none_is_an_error(tmp_path, section, content):
    (tmp_path / "c.yaml").write_text(f"run_dir: run\n{section}: {content}\n")
    with pytest.raises(ConfigError, match=f"{section}: holds no keys"):
        parse_train(
            ["--config", str(tmp_path / "c.yaml"), "--run_dir", str(tmp_path)], methods.METHODS
        )


def test_a_pipe_is_refused_and_not_read_as_an_empty_file(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"--config: .*c\.yaml is a pipe"):
        parse_train(
            ["--config", str(tmp_path / "c.yaml"), "--run_dir", str(tmp_path)], methods.METHODS
        )


@pytest.mark.parametrize("section", ["data", "train"])
def test_a_section_of_a_run_that_is_a_list_is_an_error(tmp_path, section):
    (tmp_path / "config.yaml").write_text(f"run_dir: run\n{section}: [1, 2]\n")
    with pytest.raises(ConfigError, match=rf"config\.yaml: expected a mapping .* {section}"):
        load(tmp_path / "config.yaml")


@pytest.mark.parametrize("words", [["--data.num_frames", "\x1b[2J"], ["--", "\x1b[2J"]])
def test_words_that_a_terminal_would_obey_are_written_out(words):
    with pytest.raises(ConfigError, match=r"\\x1b\[2J") as error:
        parse_train(["--run_dir", "run", *words], methods.METHODS)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("text", ["1e5", "0E0", "-1.5e-3", "12", "null", "yes", "1_0e1", ".5E1"])
def test_a_text_that_looks_like_a_number_is_saved_as_text(tmp_path, text):
    config, _ = parse_train(["--run_dir", "run"], methods.METHODS)
    config = replace(config, data=replace(config.data, root=text))
    (tmp_path / "c.yaml").write_text(dump(config))
    read, _ = parse_train(
        ["--config", str(tmp_path / "c.yaml"), "--run_dir", "run"], methods.METHODS
    )
    assert read == config and load(tmp_path / "c.yaml") == as_dict(config)


def test_aliases_of_some_values_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &a {x: 1}\nb: *a\n")
    assert read_yaml(tmp_path / "c.yaml", "--config") == {"a": {"x": 1}, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["clip", "num_frames"], 10**9, "num_frames: 1000000000 is outside 1..4096"),
        (["clip", "crop_size"], "16", "crop_size: '16' where int is expected"),
        (["num_classes"], 3, "label_names: 2 of 3 classes"),
        (["label_names"], ["walk", "ru\x1b[2Jn"], "control character"),
        (["label_names"], ["walk", "walk"], "label_names: 'walk' names two classes"),
        (["label_names"], ["walk", " "], "label_names: an empty name"),
        (["label_names"], [], "label_names: 0 of 2 classes"),
        (["label_names"], ["walk", ["run"]], "label_names"),
        (["method", "bottleneck"], [4], "method.bottleneck: .* where int is expected"),
        (["method"], "adaptformer", "adapter.json"),
        (["evaluation", "fusion"], "max", "eval.fusion"),
        (["model", "tubelet_size"], 0, "tubelet_size: 0 is outside"),
        (["reader"], "system", "reader: 'system' is unknown"),
    ],
)
def test_an_adapter_that_says_what_none_can_is_refused(tmp_path, place, value, said):
    about = json.loads((_adapter() / "adapter.json").read_text())
    inner = about
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "adapter.json").write_text(json.dumps(about))
    (tmp_path / "adapter.safetensors").write_bytes(
        (_adapter() / "adapter.safetensors").read_bytes()
    )
    with pytest.raises(RunError, match=rf"adapter\.json.*{said}|{said}"):
        read_adapter(tmp_path)


def test_an_adapter_without_its_backbones_fingerprint_is_refused(tmp_path):
    about = json.loads((_adapter() / "adapter.json").read_text())
    del about["model"]["fingerprint"]
    (tmp_path / "adapter.json").write_text(json.dumps(about))
    tensors = (_adapter() / "adapter.safetensors").read_bytes()
    (tmp_path / "adapter.safetensors").write_bytes(tensors)
    with pytest.raises(RunError, match=r"adapter\.json: is incomplete.*fingerprint"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/dev/zero", "adapter\x7fjson"])
def test_checksums_name_files_of_their_folder_alone(tmp_path, name):
    folder = tmp_path / "adapter"
    shutil.copytree(_adapter(), folder)
    sums = json.loads((folder / "checksums.json").read_text())
    (folder / "checksums.json").write_text(json.dumps({**sums, name: "0" * 64}))
    with pytest.raises(RunError, match=r"checksums\.json is damaged: .* no file of a checkpoint"):
        read_adapter(folder)


@pytest.mark.parametrize("left", [(), ("adapter.json",), ("adapter.safetensors",), "[]", "3", "{"])
def test_checksums_that_leave_a_file_unchecked_are_refused(tmp_path, left):
    folder = shutil.copytree(_adapter(), tmp_path / "adapter")
    sums = json.loads((folder / "checksums.json").read_text())
    text = left if isinstance(left, str) else json.dumps({name: sums[name] for name in left})
    (folder / "checksums.json").write_text(text)
    with pytest.raises(RunError, match=r"checksums\.json (is damaged: it has no|cannot be read)"):
        read_adapter(folder)


def test_checksums_without_the_state_for_resuming_are_refused(tmp_path):
    folder = tmp_path / "last"
    checkpoints.save_checkpoint(folder, {"a": torch.ones(2)}, {"b": 1}, {"epoch": 1})
    assert checkpoints.damage(folder, to_resume=True) is None
    sums = json.loads((folder / "checksums.json").read_text())
    del sums["trainer.pt"]
    (folder / "checksums.json").write_text(json.dumps(sums))
    assert "trainer.pt" in (checkpoints.damage(folder, to_resume=True) or "")


def test_a_state_for_resuming_that_would_grow_is_not_unpacked(tmp_path):
    torch.save({"optimizer": torch.zeros(1 << 20)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as old,
        zipfile.ZipFile(tmp_path / "trainer.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(RunError, match=r"trainer\.pt.* is compressed"):
        checkpoints.load_trainer(tmp_path)


def test_what_a_library_repeats_of_a_file_is_written_out(tmp_path):
    shutil.copytree(_adapter(), tmp_path / "adapter")
    (tmp_path / "adapter" / "checksums.json").unlink()
    header = json.dumps({"a": {"dtype": "\x1b[31m", "shape": [], "data_offsets": [0, 0]}}).encode()
    file = tmp_path / "adapter" / "adapter.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(RunError, match=r"not a safetensors file.*\\x1b\[31m"):
        read_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("value", ["false", "{}", "other.yaml", "[a.yaml]"])
def test_a_configuration_that_names_another_is_refused(tmp_path, value):
    (tmp_path / "c.yaml").write_text(f"config: {value}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: config: .*names no other"):
        parse_train(
            ["--config", str(tmp_path / "c.yaml"), "--run_dir", str(tmp_path)], methods.METHODS
        )


@pytest.mark.parametrize("text", ["[]", "3", '"a"', "[" * 100_000, "\x00", b"\xff\xfe{}"])
def test_a_description_that_is_none_is_refused(tmp_path, text):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "adapter.json").write_bytes(content)
    (tmp_path / "adapter.safetensors").write_bytes(
        (_adapter() / "adapter.safetensors").read_bytes()
    )
    with pytest.raises(RunError, match=r"adapter\.json: not valid JSON"):
        read_adapter(tmp_path)


def changed(tmp_path, **arrays):
    data, _ = _scores()
    (tmp_path / "scores.npz").write_bytes(data)
    with np.load(tmp_path / "scores.npz") as file:
        whole = {name: file[name] for name in file.files}
    whole |= {name: change(whole[name]) for name, change in arrays.items()}
    np.savez(tmp_path / "scores.npz", **whole)
    return tmp_path / "scores.npz"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"label": lambda a: a + 3}, "labels lie outside 0..2"),
        ({"label": lambda a: np.roll(a, 1)}, "a video has different labels"),
        ({"clip": lambda a: a[::-1]}, "not those of every other"),
        ({"clip": lambda a: a - 1}, "negative"),
        ({"logits": lambda a: a[:, None]}, "not a scores file"),
        ({"logits": lambda a: a * np.inf}, "not finite"),
        ({"errors": lambda a: np.array("{}")}, "not finite"),
        ({"errors": lambda a: np.array('{"x": "y"}')}, "errors of videos that it does not hold"),
        ({"errors": lambda a: np.array("[" * 10_000)}, "not a scores file"),
        ({"about": lambda a: np.array("[]")}, "no names and values"),
    ],
)
def test_scores_whose_parts_do_not_fit_are_refused(tmp_path, arrays, said):
    with pytest.raises(ValueError, match=rf"scores\.npz: .*{said}"):
        load_scores(changed(tmp_path, **arrays))


def test_scores_that_fit_are_those_that_were_saved(tmp_path):
    scores, about = load_scores(changed(tmp_path))
    assert (accuracies(scores), about) == (_scores()[1], {"list": "a.txt"})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifest": ', "[" * 100_000, "\x00"])
def test_results_that_are_none_are_not_overwritten(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ConfigError, match=r"--out: .*metrics\.json holds no results"):
        check_same_list(tmp_path, "5" * 64)


def test_causes_in_a_quarantine_are_written_out(tmp_path):
    (tmp_path / "q.txt").write_text("a.mp4\tbroken\x1b[2J\n")
    assert read_quarantine(tmp_path / "q.txt") == {"a.mp4": "broken\\x1b[2J"}


@pytest.mark.parametrize("line", ["../a.mp4", "/etc/a.mp4 3", "b/../../a.mp4 1", "a\x1b[2J.mp4"])
def test_a_list_of_videos_to_predict_stays_in_its_folder(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"good.mp4\n{line}\n")
    with pytest.raises(ListError, match=r"list\.txt:2: it (leads out|holds)"):
        find_videos([str(tmp_path / "list.txt")])
    if "\x1b" not in line:
        first, second = find_videos([str(tmp_path / "list.txt")], allow_outside_root=True)
        assert first == GivenVideo(str(tmp_path / "good.mp4"))
        assert second.path.endswith("a.mp4")


def test_the_configurations_of_the_corpus_are_read_as_data(tmp_path):
    for file in sorted((Path(__file__).parent / "corpus").glob("*.yaml")):
        with pytest.raises(ConfigError):
            parse_train(["--config", str(file), "--run_dir", str(tmp_path)], methods.METHODS)
