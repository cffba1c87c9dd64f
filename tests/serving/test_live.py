"""A live stream's windows are those of its file, and nothing that a stream does stops them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_tool, write_adapter
from test_films import pictures, steady, write_film

import vidadapt
from vidadapt.config import Config, ConfigError, DataConfig, ModelConfig, TrainConfig
from vidadapt.serving import live
from vidadapt.serving.films import windows_of
from vidadapt.serving.live import live_windows
from vidadapt.video import LiveStream, ReadError, live_source, open_film

LENGTH, HOP = Fraction(1, 2), Fraction(1, 4)
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def folder(tiny_set, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "last"
    config = Config(
        run_dir=str(folder.parent),
        method={"name": "adaptformer"},
        data=DataConfig(
            label_names=str(tiny_set.root / "labels.txt"),
            num_frames=4,
            crop_size=32,
            sampling="uniform8",
        ),
        model=ModelConfig(backbone="vit_tiny", weights=str(tiny_set.weights)),
        train=TrainConfig(precision="fp32"),
    )
    write_adapter(folder, config, seed=1)
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.ts"
    return write_film(path, pictures(50), steady(50))


@contextlib.contextmanager
def serving(*answers: Answer) -> Iterator[str]:
    """The address of a server that gives each connection its answer, later ones the last."""
    waiting = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stream"
    finally:
        server.shutdown()
        server.server_close()


def sends(data: bytes, seconds: float, then: float = 0.0) -> Answer:
    """Send bytes evenly over some seconds, as a camera would, and wait before the end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        began, sent = time.monotonic(), 0
        while sent < len(data):
            until = int(len(data) * min(1.0, (time.monotonic() - began) / seconds))
            handler.wfile.write(data[sent:until])
            sent = until
            time.sleep(0.02)
        time.sleep(then)

    return answer


def refuses(status: int) -> Answer:
    return lambda handler: handler.send_error(status)


def windows_until_given_up(used, stream: LiveStream, length=LENGTH, hop=HOP) -> list:
    """All windows of a stream that is given up in the end."""
    found = []
    with pytest.raises(ReadError):
        for window in live_windows(used, stream, length, hop):
            found.append(window)
    return found


def test_windows_are_those_of_the_file(folder, film):
    used = vidadapt.load(folder)
    wanted = list(windows_of(used, open_film(str(film)), LENGTH, HOP))
    with serving(sends(film.read_bytes(), 2.0), refuses(503)) as address:
        stream = LiveStream(address, give_up=1.5)
        found = windows_until_given_up(used, stream)
    assert not any(window.passed_over for window in found)
    # The last one shown may end after the stream: its last frame is there before.
    assert len(wanted) <= len(found) <= len(wanted) + 1
    for window, there in zip(found, wanted, strict=False):
        assert (window.window.start, window.window.end) == (there.start, there.end)
        np.testing.assert_allclose(window.window.probabilities, there.probabilities, atol=1e-5)
    assert np.ptp(np.stack([each.probabilities for each in wanted]), axis=0).max() > 1e-3
    assert stream.num_frames == 50 and not stream.num_faults and not stream.jumps


def test_a_connection_that_is_cut_is_opened_again_and_no_window_mixes(folder, film):
    used, data = vidadapt.load(folder), film.read_bytes()
    cut = data[: len(data) * 6 // 10 // 188 * 188]
    with serving(sends(cut, 1.2), sends(data, 2.0), refuses(503)) as address:
        stream = LiveStream(address, give_up=1.5)
        found = windows_until_given_up(used, stream)
    wanted = list(windows_of(used, open_film(str(film)), LENGTH, HOP))
    parts = [[each for each in found if each.part == part] for part in (0, 1)]
    assert len(found) == sum(map(len, parts)) and stream.reconnections >= 1
    assert 2 <= len(parts[0]) < len(wanted) <= len(parts[1])
    for part in parts:  # each begins anew and shows what the file shows
        assert [each.window.start for each in part] == [HOP * k for k in range(len(part))]
        for window, there in zip(part, wanted, strict=False):
            np.testing.assert_allclose(window.window.probabilities, there.probabilities, atol=1e-5)


def test_a_stream_that_stalls_is_opened_again(folder, film):
    data = film.read_bytes()
    with serving(sends(data, 1.0, then=30), sends(data, 1.0), refuses(503)) as address:
        stream = LiveStream(address, stall=0.7, give_up=2.5)
        found = windows_until_given_up(vidadapt.load(folder), stream)
    assert {each.part for each in found} == {0, 1}


def test_timestamps_that_restart_begin_a_new_part(folder, film):
    data = film.read_bytes()
    with serving(sends(data + data, 3.0), refuses(503)) as address:
        stream = LiveStream(address, give_up=1.5)
        found = windows_until_given_up(vidadapt.load(folder), stream)
    assert {each.part for each in found} == {0, 1} and stream.jumps == 1
    starts = [each.window.start for each in found]
    assert sum(later < earlier for earlier, later in pairwise(starts)) == 1


def test_a_slow_model_passes_windows_over_and_latency_does_not_grow(folder, film):
    used, slow = vidadapt.load(folder), 0.4
    used.module.register_forward_pre_hook(lambda *_: time.sleep(slow))
    hop = Fraction(1, 25)
    with serving(sends(film.read_bytes(), 2.0), refuses(503)) as address:
        stream = LiveStream(address, give_up=1.5)
        found = windows_until_given_up(used, stream, hop=hop)
    assert sum(each.passed_over for each in found) > 10
    # Each waits for those before it in the queue, for the one that is looked at, and for itself.
    most = (live.WAITING + 2) * (slow + 0.3)
    assert max(each.latency for each in found) < most
    numbers = np.cumsum([1 + each.passed_over for each in found]) - 1
    assert [each.window.start for each in found] == [hop * int(number) for number in numbers]


def test_memory_holds_the_frames_of_few_windows(folder, film):
    used, hop = vidadapt.load(folder), Fraction(1, 25)
    kept: list[int] = []

    def count(*_: object) -> None:
        time.sleep(0.3)
        squares = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        kept.append(sum(each.shape == (32, 32, 3) for each in squares))

    used.module.register_forward_pre_hook(count)
    with serving(sends(film.read_bytes(), 2.0), refuses(503)) as address:
        windows_until_given_up(used, LiveStream(address, give_up=1.5), hop=hop)
    open_ones = int(LENGTH / hop) + 1
    assert 0 < max(kept) <= 4 * (live.WAITING + 1) + 4 * open_ones


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{film}\n",
        "ffconcat version 1.0\nfile 'file://{film}'\n",
    ],
)
def test_a_playlist_that_names_a_local_file_is_refused_at_once(folder, film, text):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.end_headers()
        handler.wfile.write(text.format(film=film).encode())

    with serving(answer) as address:
        stream = LiveStream(address + ".m3u8", give_up=20)
        began = time.monotonic()
        assert not windows_until_given_up(vidadapt.load(folder), stream)
    assert not stream.num_frames and time.monotonic() - began < 10


def test_a_redirect_to_a_file_is_not_followed(folder, film):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"file://{film}")
        handler.end_headers()

    with serving(answer) as address:
        stream = LiveStream(address, give_up=1)
        assert not windows_until_given_up(vidadapt.load(folder), stream)
    assert not stream.num_frames


def words(folder: Path, source: str, *more: str) -> list[str]:
    return [source, "--live", "--adapter", str(folder), "--window", "0.5s", *more]


def test_the_command_prints_windows_and_a_summary_and_no_password(folder, film, capsys):
    with serving(sends(film.read_bytes(), 2.0), refuses(503)) as address:
        address = address.replace("http://", "http://me:secretword@") + "?key=secretword"
        status = load_tool("predict").main(words(folder, address, "--json", "--give_up", "1s"))
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert status == 1 and len(lines) > 8
    assert [line["start"] for line in lines[:3]] == [0, 0.125, 0.25]
    assert all(line["latency"] >= 0 and len(line["top"]) == 3 for line in lines)
    assert f"{len(lines)} windows" in said.err and "secretword" not in said.out + said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_a_summary(folder, film, capsys, number):
    with serving(sends(film.read_bytes(), 2.0, then=30)) as address:
        timer = threading.Timer(2.5, os.kill, (os.getpid(), number))
        timer.start()
        assert load_tool("predict").main(words(folder, address)) == 0
    said = capsys.readouterr()
    assert f"{len(said.out.splitlines())} windows" in said.err and said.out


def test_an_address_that_is_not_there_is_said_at_once(folder, capsys):
    with serving(refuses(404)) as address:
        began = time.monotonic()
        assert load_tool("predict").main(words(folder, address)) == 1
    assert time.monotonic() - began < 20 and "404" in capsys.readouterr().err


def test_a_file_on_a_server_is_no_stream(folder, tmp_path):
    path = write_film(tmp_path / "film.mkv", pictures(50), steady(50))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(path.stat().st_size))
        handler.end_headers()
        handler.wfile.write(path.read_bytes())

    with serving(answer) as address:
        stream = LiveStream(address)
        assert not windows_until_given_up(vidadapt.load(folder), stream)
    assert not stream.num_frames


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (["--timeline", "out"], "--timeline"),
        (["--root", "."], "--root"),
        (["--allow_outside_root"], "--allow_outside_root"),
    ],
)
def test_options_that_do_not_go_with_live_are_named(folder, more, key):
    with pytest.raises(ConfigError, match=key):
        load_tool("predict").main(words(folder, "http://127.0.0.1:9/", *more))


def test_several_sources_are_refused(folder):
    with pytest.raises(ConfigError, match="--live"):
        load_tool("predict").main(["http://127.0.0.1:9/", *words(folder, "0")])


def test_live_goes_with_a_window_and_its_options_with_live(folder, film):
    adapter = ["--adapter", str(folder)]
    with pytest.raises(ConfigError, match="--window"):
        load_tool("predict").main(["http://127.0.0.1:9/", "--live", *adapter])
    with pytest.raises(ConfigError, match="--stall"):
        load_tool("predict").main([str(film), *adapter, "--window", "1s", "--stall", "2s"])


@pytest.mark.parametrize("word", ["film.mp4", "s3://bucket/a.mp4", "file:///etc/passwd", "http://"])
def test_what_is_no_stream_is_refused(word):
    with pytest.raises(ValueError, match="--live"):
        live_source(word)


def test_a_camera_that_is_not_there_is_named(folder):
    for word in ("987", "/dev/video987"):
        with pytest.raises(ValueError, match=r"/dev/video987: no such camera"):
            load_tool("predict").main(words(folder, word))


def test_a_device_that_is_no_camera_gives_a_plain_error():
    stream = LiveStream(live_source("/dev/null"), give_up=1)
    with pytest.raises(ReadError, match="/dev/null"):
        next(live.live_frames(stream))
    assert not stream.num_frames
