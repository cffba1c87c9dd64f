"""A live stream's windows are those of its file, and nothing that a stream does stops them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import signal
import socket
import struct
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
from conftest import load_tool
from test_films import model, pictures, steady, write_film  # noqa: F401 (a fixture)

import vidadapt
from vidadapt.config import ConfigError
from vidadapt.serving import live
from vidadapt.serving.films import Window, windows_of
from vidadapt.serving.live import live_windows
from vidadapt.video import LiveStream, ReadError, live_frames, live_source, open_film

LENGTH, HOP = Fraction(1, 2), Fraction(1, 4)
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def folder(model) -> Path:  # noqa: F811 (the fixture)
    return model().adapter.folder


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


def ends(stop: threading.Event) -> Answer:
    """End the reading; what was read before is looked at."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        stop.set()
        handler.send_error(503)

    return answer


def refused(stream: LiveStream) -> str:
    """What is said of a stream of which no frame is read."""
    with pytest.raises(ReadError) as error:
        next(live_frames(stream))
    assert not stream.num_frames
    return str(error.value)


def assert_alike(found: list[live.LiveWindow], wanted: list[Window]) -> None:
    """Check that windows are those of a file. One more may end after the stream does."""
    assert len(wanted) <= len(found) <= len(wanted) + 1
    for window, there in zip(found, wanted, strict=False):
        assert (window.window.start, window.window.end) == (there.start, there.end)
        np.testing.assert_allclose(window.window.probabilities, there.probabilities, atol=1e-5)


@pytest.fixture
def patient(monkeypatch) -> None:
    """Pass no window over, however slow this machine is."""
    monkeypatch.setattr(live, "WAITING", 1000)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("frames", [False, True])
def test_windows_are_those_of_the_file(model, film, frames):  # noqa: F811
    used, stop = model(frames=frames), threading.Event()
    wanted = list(windows_of(used, open_film(str(film)), LENGTH, HOP))
    with serving(sends(film.read_bytes(), 1.0), ends(stop)) as address:
        stream = LiveStream(address, stop=stop)
        found = list(live_windows(used, stream, LENGTH, HOP))
    assert_alike(found, wanted)
    assert not any(window.passed_over for window in found)
    assert np.ptp(np.stack([each.probabilities for each in wanted]), axis=0).max() > 1e-3
    assert stream.num_frames == 50 and not stream.num_faults and not stream.jumps


@pytest.mark.usefixtures("patient")
def test_a_connection_that_is_cut_is_opened_again_and_no_window_mixes(folder, film):
    used, data, stop = vidadapt.load(folder), film.read_bytes(), threading.Event()
    cut = data[: len(data) * 6 // 10 // 188 * 188]
    with serving(sends(cut, 0.6), sends(data, 1.0), ends(stop)) as address:
        stream = LiveStream(address, stop=stop)
        found = list(live_windows(used, stream, LENGTH, HOP))
    wanted = list(windows_of(used, open_film(str(film)), LENGTH, HOP))
    before = [each for each in found if each.part == 0]
    assert 2 <= len(before) < len(wanted) and stream.connections == 2
    # Each part begins anew, and shows what the file shows.
    assert_alike(before, wanted[: len(before)])
    assert_alike(found[len(before) :], wanted)
    assert {each.part for each in found[len(before) :]} == {1}


@pytest.mark.usefixtures("patient")
def test_a_stream_that_stalls_is_opened_again(folder, film, capsys):
    data, stop = film.read_bytes(), threading.Event()
    with serving(sends(data, 1.0, then=60), sends(data, 1.0), ends(stop)) as address:
        stream = LiveStream(address, stall=1.5, stop=stop)
        found = list(live_windows(vidadapt.load(folder), stream, LENGTH, HOP))
    assert {each.part for each in found} == {0, 1}
    assert "opened again" in capsys.readouterr().err


@pytest.mark.usefixtures("patient")
def test_timestamps_that_restart_begin_a_new_part(folder, film):
    data, stop = film.read_bytes(), threading.Event()
    with serving(sends(data + data, 1.5), ends(stop)) as address:
        stream = LiveStream(address, stop=stop)
        found = list(live_windows(vidadapt.load(folder), stream, LENGTH, HOP))
    assert {each.part for each in found} == {0, 1} and stream.jumps == 1
    starts = [each.window.start for each in found]
    assert sum(later < earlier for earlier, later in pairwise(starts)) == 1


def test_lost_bytes_are_counted_and_the_rest_is_read(film):
    data, stop = film.read_bytes(), threading.Event()
    packets = len(data) // 188
    lost = data[: 188 * (packets // 2)] + data[188 * (packets // 2 + packets // 20) :]
    with serving(sends(lost, 1.0), ends(stop)) as address:
        stream = LiveStream(address, stop=stop)
        shown = [*live_frames(stream)]
    assert stream.num_damaged + stream.num_faults > 0
    assert len(shown) > 40 and shown[-1][3] == Fraction(49, 25)


def test_a_slow_model_passes_windows_over_and_latency_does_not_grow(folder, film):
    used, slow, stop = vidadapt.load(folder), 0.4, threading.Event()
    used.module.register_forward_pre_hook(lambda *_: time.sleep(slow))
    hop = Fraction(1, 25)
    with serving(sends(film.read_bytes(), 2.0), ends(stop)) as address:
        found = list(live_windows(used, LiveStream(address, stop=stop), LENGTH, hop))
    assert sum(each.passed_over for each in found) > 10
    # Each waits for those before it in the queue, for the one that is looked at, and for itself.
    # All 38 would take 15 s.
    assert max(each.latency for each in found) < (live.WAITING + 2) * (slow + 1)
    numbers = np.cumsum([1 + each.passed_over for each in found]) - 1
    assert [each.window.start for each in found] == [hop * int(number) for number in numbers]


def test_memory_holds_the_frames_of_few_windows(folder, film):
    used, hop, stop = vidadapt.load(folder), Fraction(1, 25), threading.Event()
    kept: list[int] = []

    def count(*_: object) -> None:
        time.sleep(0.3)
        held = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        kept.append(sum(each.shape == (32, 32, 3) for each in held))

    used.module.register_forward_pre_hook(count)
    with serving(sends(film.read_bytes(), 2.0), ends(stop)) as address:
        list(live_windows(used, LiveStream(address, stop=stop), LENGTH, hop))
    open_ones = int(LENGTH / hop) + 1
    assert 0 < max(kept) <= 4 * (live.WAITING + 1) + 4 * open_ones


@pytest.mark.usefixtures("patient")
def test_a_stream_of_datagrams(folder, film):
    used, data, stop = vidadapt.load(folder), film.read_bytes(), threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not stop.is_set():
                for at in range(0, len(data), 7 * 188):
                    out.sendto(data[at : at + 7 * 188], ("127.0.0.1", port))
                    time.sleep(2 * 7 * 188 / len(data))

    threading.Thread(target=send, daemon=True).start()
    windows = live_windows(used, LiveStream(f"udp://127.0.0.1:{port}", stop=stop), LENGTH, HOP)
    assert len([*itertools.islice(windows, 3)]) == 3
    windows.close()
    assert stop.is_set()


@contextlib.contextmanager
def rtsp_serving(data: bytes, seconds: float) -> Iterator[str]:
    """The address of a server that sends a transport stream by RTSP, within its one connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def packets(connection: socket.socket) -> None:
        for number, at in enumerate(range(0, len(data), 7 * 188)):
            clock = int(90_000 * seconds * at / len(data))
            packet = struct.pack(">BBHII", 0x80, 33, number, clock, 7) + data[at : at + 7 * 188]
            connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(seconds * 7 * 188 / len(data))

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as asked:
            while line := asked.readline().decode():
                method, headers = line.split()[0], dict[str, str]()
                while (header := asked.readline().decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                answer, body = [f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}"], ""
                if method == "DESCRIBE":
                    body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
                    body += "m=video 0 RTP/AVP 33\r\na=control:video\r\n"
                    answer += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
                if method == "SETUP":
                    answer += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
                if method == "PLAY":
                    answer.append("Session: 1")
                connection.sendall(("\r\n".join(answer) + "\r\n\r\n" + body).encode())
                if method == "PLAY":
                    packets(connection)
                    return

    threading.Thread(target=serve, daemon=True).start()
    with server:
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/1"


@pytest.mark.usefixtures("patient")
def test_a_stream_by_rtsp(folder, film):
    used = vidadapt.load(folder)
    wanted = list(windows_of(used, open_film(str(film)), LENGTH, HOP))
    with rtsp_serving(film.read_bytes(), 1.0) as address:
        windows = live_windows(used, LiveStream(address), LENGTH, HOP)
        found = [*itertools.islice(windows, len(wanted) - 1)]  # FFmpeg drops RTSP's last frame
        windows.close()
    assert_alike(found, wanted[:-1])


@pytest.mark.parametrize("ending", ["", ".m3u8"])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{film}\n",
        "ffconcat version 1.0\nfile 'file://{film}'\n",
    ],
)
def test_a_playlist_that_names_a_local_file_is_refused_at_once(film, text, ending):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        body = text.format(film=film).encode()
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(answer) as address:
        began = time.monotonic()
        assert "playlist" in refused(LiveStream(address + ending))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("to", ["file://{film}", "concat:{film}", "https://127.0.0.1:9/"])
def test_a_redirect_to_another_kind_of_address_is_not_followed(film, to):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to.format(film=film))
        handler.end_headers()

    with serving(answer) as address:
        refused(LiveStream(address, give_up=1))


def words(folder: Path, source: str, *more: str) -> list[str]:
    return [source, "--live", "--adapter", str(folder), "--window", "0.5s", *more]


def test_the_command_prints_windows_and_a_summary_and_no_password(folder, film, capsys):
    with serving(sends(film.read_bytes(), 1.0), refuses(503)) as address:
        address = address.replace("http://", "http://me:secretword@") + "?key=secretword"
        status = load_tool("predict").main(words(folder, address, "--json", "--give_up", "2s"))
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert status == 1 and len(lines) > 8
    assert [line["start"] for line in lines[:3]] == [0, 0.125, 0.25]
    assert all(line["latency"] >= 0 and len(line["top"]) == 3 for line in lines)
    assert f"{len(lines)} windows" in said.err and "secretword" not in said.out + said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_a_summary(folder, film, capsys, number):
    with serving(sends(film.read_bytes(), 1.0, then=30)) as address:
        timer = threading.Timer(1.8, os.kill, (os.getpid(), number))
        timer.start()
        assert load_tool("predict").main(words(folder, address)) == 0
    said = capsys.readouterr()
    assert f"{len(said.out.splitlines())} windows" in said.err and said.out


def test_an_address_that_is_not_there_is_said_at_once(folder, capsys):
    with serving(refuses(404)) as address:
        began = time.monotonic()
        assert load_tool("predict").main(words(folder, address)) == 1
    assert time.monotonic() - began < 20 and "404" in capsys.readouterr().err


def test_a_file_on_a_server_is_no_stream(tmp_path):
    path = write_film(tmp_path / "film.mkv", pictures(50), steady(50))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(path.stat().st_size))
        handler.end_headers()
        handler.wfile.write(path.read_bytes())

    with serving(answer) as address:
        assert "--live" in refused(LiveStream(address))


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


def test_a_device_that_is_no_camera_is_said_by_its_driver():
    """FFmpeg takes all options of a camera, and asks the device."""
    assert "ioctl" in refused(LiveStream("/dev/null", give_up=1))


def test_a_reading_that_blocks_is_given_up(folder, monkeypatch):
    """As a camera's driver may."""
    monkeypatch.setattr(live, "live_frames", lambda stream: iter(lambda: time.sleep(60), 0))
    stream = LiveStream("/dev/video0", stall=0.1, give_up=0.1)
    with pytest.raises(ReadError, match="/dev/video0"):
        next(live_windows(vidadapt.load(folder), stream, LENGTH, HOP))
