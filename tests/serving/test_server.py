"""The server answers what predict says, however many ask at once and whatever they send."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from conftest import load_tool, processes_with, tiny_adapter, write_adapter
from in_browser import OVERLAPS, opened, parts
from PIL import Image
from safetensors.torch import save_file

from benchmarks.serving import decoders_of
from vidadapt import models
from vidadapt.apps.report import filled
from vidadapt.apps.synthetic import write_video
from vidadapt.config import Config, ConfigError, DataConfig, EvalConfig, ModelConfig, TrainConfig
from vidadapt.serving import GivenVideo, Predictor
from vidadapt.serving.server.app import make_app
from vidadapt.serving.server.service import Limits, Service

METHODS = {"probe": ("linear", 2), "inside": ("adaptformer", 2), "other": ("vpt", 1)}


@dataclass(frozen=True)
class Reply:
    """Status, headers and body of an answer; a body of JSON is read."""

    status: int
    headers: Any
    body: Any


@dataclass(frozen=True)
class Running:
    """A server in this process."""

    service: Service
    port: int

    def ask(
        self, method: str, path: str, body: Any = None, chunked: bool = False, **headers: str
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers, encode_chunked=chunked)
            reply = connection.getresponse()
            found = reply.read()
            is_json = reply.headers["content-type"] == "application/json"
            return Reply(reply.status, reply.headers, json.loads(found) if is_json else found)
        finally:
            connection.close()

    def look(self, video: bytes, *adapters: str, top: int = 3) -> Reply:
        names = "".join(f"&adapter={name}" for name in adapters)
        return self.ask("POST", f"/predict?top={top}{names}", video)

    def look_at(self, path: str, **more: Any) -> Reply:
        asked = json.dumps({"path": path, **more})
        return self.ask("POST", "/predict/path", asked, **{"Content-Type": "application/json"})

    def figure(self, name: str) -> float:
        text = self.ask("GET", "/metrics").body.decode()
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]


@contextmanager
def running(
    predictor: Predictor, root: Path | None = None, workers: int = 1, **limits: Any
) -> Iterator[Running]:
    service = Service(predictor, num_workers=workers, root=root, limits=Limits(**limits))
    service.warm_up()
    config = uvicorn.Config(make_app(service, filled("serve.html.j2")), log_level="warning")
    server = uvicorn.Server(config)
    door = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        yield Running(service, door.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def folders(tiny_set, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    made = {}
    for name, (method, num_clips) in METHODS.items():
        cfg = tiny_adapter(tiny_set, method, num_clips=num_clips, num_crops=3)
        write_adapter(root / name / "best", cfg, seed=len(made), spread=0.5)
        made[name] = root / name / "best"
    return made


@pytest.fixture(scope="module")
def predictor(folders) -> Predictor:
    return Predictor(folders)


@pytest.fixture(scope="module")
def server(predictor, tiny_set) -> Iterator[Running]:
    with running(predictor, tiny_set.root, workers=2, wait=0.05) as found:
        yield found


@pytest.fixture(scope="module")
def videos(tiny_set) -> list[Path]:
    return sorted(tiny_set.root.glob("test *.mp4"))


@pytest.fixture(scope="module")
def said(predictor, videos) -> dict[Path, dict[str, list[tuple[str, float]]]]:
    """Video -> adapter -> what `Predictor` says of it, one video after the other."""
    given = [GivenVideo(str(path)) for path in videos]
    return {
        Path(one.video.path): {
            name: [(guess.name, guess.probability) for guess in guesses]
            for name, guesses in one.guesses.items()
        }
        for one in predictor(given, top=3)
    }


def agree(reply: Reply, said: dict[str, list[tuple[str, float]]], names: Sequence[str]) -> None:
    assert reply.status == 200, reply.body
    assert list(reply.body["predictions"]) == list(names)
    for name in names:
        found = reply.body["predictions"][name]["top"]
        shares = {guess["name"]: guess["probability"] for guess in found}
        assert shares == pytest.approx(dict(said[name]), abs=1e-5)
        assert [guess["probability"] for guess in found] == sorted(shares.values(), reverse=True)


def test_uploads_and_paths_are_answered_as_predict_does(server, videos, said):
    for path in videos:
        agree(server.look(path.read_bytes()), said[path], list(METHODS))
        agree(server.look_at(path.name, top=3), said[path], list(METHODS))
    absolute = server.look_at(str(videos[0]), adapters=["other"], top=3)
    agree(absolute, said[videos[0]], ["other"])
    assert absolute.body["predictions"]["other"]["views"] == "1 clips x 3 crops"
    assert absolute.body["warnings"] == []
    assert len(server.look(videos[0].read_bytes(), top=1).body["predictions"]["probe"]["top"]) == 1


def test_one_view_a_video_and_images_are_answered_as_predict_does(folders, tiny_set, tmp_path):
    image = tmp_path / "image.png"
    Image.effect_noise((60, 40), 90).convert("RGB").save(image)
    torch.manual_seed(0)
    frames = {"from_image": "frames"}
    built, _ = models.build(
        "timm/vit_tiny_patch16_224", num_frames=1, crop_size=32, num_classes=3, **frames
    )
    state = {k: v for k, v in built.image.state_dict().items() if not k.startswith("head")}
    save_file(state, tmp_path / "image.safetensors")
    more = {}
    for name, several in (("image", False), ("tags", True)):
        cfg = Config(
            run_dir="",
            method={"name": "linear"},
            data=DataConfig(
                label_names=str(tiny_set.root / "labels.txt"),
                sampling="image",
                crop_size=32,
                multi_label=several,
            ),
            model=ModelConfig(
                backbone="timm/vit_tiny_patch16_224",
                weights=str(tmp_path / "image.safetensors"),
                **frames,
            ),
            train=TrainConfig(precision="fp32"),
            eval=EvalConfig(num_clips=1, num_crops=1),
        )
        write_adapter(tmp_path / name / "best", cfg, seed=9)
        more[name] = tmp_path / name / "best"
    for one in (Predictor(more), Predictor(folders, num_clips=1, num_crops=1)):
        [prediction] = one([GivenVideo(str(image))], top=3)
        told = {
            name: [(guess.name, guess.probability) for guess in guesses]
            for name, guesses in prediction.guesses.items()
        }
        with running(one) as server:
            agree(server.look(image.read_bytes()), told, one.names)


def test_requests_for_several_adapters_at_once_share_passes(server, videos, said):
    asked = [(path, name) for path in videos for name in METHODS] * 3
    before = server.figure("vidadapt_pass_clips_count")
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda one: server.look(one[0].read_bytes(), one[1]), asked))
    for (path, name), reply in zip(asked, replies, strict=True):
        agree(reply, said[path], [name])
    assert server.figure("vidadapt_pass_clips_count") - before < len(asked) * 3 / 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nothing", lambda video: b""),
        ("text", lambda video: b"no video at all"),
        ("noise", lambda video: bytes(range(256)) * 64),
        ("only a beginning", lambda video: video[:200]),
        ("a playlist", lambda video: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        ("a list of files", lambda video: b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
        ("a page", lambda video: b"<html>not found</html>"),
    ],
)
def test_what_is_no_video_is_refused_with_the_cause_and_leaves_nothing(
    server, videos, said, name, content, tmp_path
):
    before = server.figure('vidadapt_requests_total{outcome="unreadable"}')
    reply = server.look(content(videos[0].read_bytes()))
    assert reply.status == 400 and reply.body["detail"]
    assert "/tmp" not in reply.body["detail"] and "vidadapt_serve" not in reply.body["detail"]
    assert server.figure('vidadapt_requests_total{outcome="unreadable"}') == before + 1
    agree(server.look(videos[0].read_bytes()), said[videos[0]], list(METHODS))


def test_a_video_that_ends_early_is_answered_with_a_warning(server, tmp_path):
    frames = torch.randint(0, 255, (40, 64, 64, 3), dtype=torch.uint8).numpy()
    write_video(tmp_path / "whole.avi", frames, 12)
    whole = (tmp_path / "whole.avi").read_bytes()
    reply = server.look(whole[: len(whole) * 2 // 3])
    assert reply.status == 200
    [warning] = reply.body["warnings"]
    assert "40" in warning and str(tmp_path) not in warning and "/tmp" not in warning


@pytest.mark.parametrize("chunked", [False, True])
def test_uploads_that_are_too_large_are_refused(predictor, videos, chunked):
    video = videos[0].read_bytes()
    with running(predictor, upload=len(video)) as server:
        assert server.look(video).status == 200
        parts = iter([video, b"1"])
        reply = server.ask("POST", "/predict", parts if chunked else video + b"1", chunked)
        assert reply.status == 413 and f"{len(video):,} bytes" in reply.body["detail"]


def test_paths_are_opened_below_the_root_alone(predictor, videos, tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside.mp4"
    (root / "folder").mkdir(parents=True)
    shutil.copy(videos[0], root / "folder" / "a.mp4")
    shutil.copy(videos[0], outside)
    os.mkfifo(root / "pipe")
    with running(predictor, root) as server:
        assert server.look_at("folder/a.mp4").status == 200
        assert server.look_at(str(root / "folder" / "a.mp4")).status == 200
        for path in (
            *(str(outside), "../outside.mp4", "folder/../../outside.mp4", "/etc/passwd"),
            *("folder/a.mp4#t=0,1", "http://127.0.0.1:9/a.mp4", "file:///etc/passwd"),
            *("a\nb.mp4", "", " "),
        ):
            reply = server.look_at(path)
            assert reply.status == 403, (path, reply.body)
        for path in ("gone.mp4", "folder", "pipe", "."):
            assert server.look_at(path).status == 404, path
        assert server.look_at("folder/a.mp4", adapters=["nobody"]).status == 404
        assert server.look_at("folder/a.mp4", top=0).status == 422
    with running(predictor) as server:
        assert server.look_at("a.mp4").status == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"path": "a.mp4", "top": NaN}', 422),
        ('{"path": "a.mp4", "top": 1e999}', 422),
        ('{"path": ["\\ud800"]}', 422),
        ("{}", 422),
        ("null", 422),
        ("", 422),
        ("[" * 90_000, 422),
        ('{"path": "\\ud800"}', 404),
        (json.dumps({"path": "a" * 300}), 404),
        (json.dumps({"path": "a/" * 9_000}), 404),
        (json.dumps({"path": "a" * 200_000}), 413),
        (json.dumps({"path": "a.mp4", "top": 10**30}), 404),
    ],
)
def test_no_body_that_names_a_video_is_a_fault_of_the_server(server, body, status):
    names = ("refused", "failed")
    before = [server.figure(f'vidadapt_requests_total{{outcome="{name}"}}') for name in names]
    reply = server.ask("POST", "/predict/path", body, **{"Content-Type": "application/json"})
    assert reply.status == status and isinstance(reply.body["detail"], str)
    assert len(reply.body["detail"]) < 500
    after = [server.figure(f'vidadapt_requests_total{{outcome="{name}"}}') for name in names]
    assert after == [before[0] + 1, before[1]]


def test_a_long_body_without_its_length_is_refused(server):
    parts = iter([b" " * 60_000] * 4)
    assert server.ask("POST", "/predict/path", parts, chunked=True).status == 413
    assert server.ask("GET", "/health").body["in_hand"] == 0


def test_uploads_that_are_a_form_are_told_so_and_odd_queries_are_counted(server, videos):
    video = videos[0].read_bytes()
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = server.ask("POST", "/predict", video, **form)
    assert reply.status == 400 and "form" in reply.body["detail"]
    before = server.figure('vidadapt_requests_total{outcome="refused"}')
    for top in ("0", "-1", "many", "nan"):
        reply = server.ask("POST", f"/predict?top={top}", video)
        assert reply.status == 422 and "top" in reply.body["detail"]
    assert server.figure('vidadapt_requests_total{outcome="refused"}') == before + 4


def test_unknown_adapters_are_named_beside_those_there_are(server, videos):
    reply = server.look(videos[0].read_bytes(), "probe", "nobody")
    assert reply.status == 404
    assert "nobody" in reply.body["detail"] and "inside" in reply.body["detail"]


def test_more_requests_than_may_be_are_turned_away_and_those_in_hand_answered(
    predictor, videos, said
):
    video = videos[0].read_bytes()
    with running(predictor, requests=2) as server:
        slow = [begun_upload(server.port, video) for _ in range(2)]
        wait_until(lambda: server.ask("GET", "/health").body["in_hand"] == 2)
        assert server.ask("GET", "/health").body["status"] == "busy"
        turned_away = server.look(video)
        assert turned_away.status == 429 and turned_away.headers["retry-after"] == "1"
        for one in slow:
            one.sendall(video[100:])
            assert one.recv(100).startswith(b"HTTP/1.1 200")
            one.close()
        wait_until(lambda: server.ask("GET", "/health").body["in_hand"] == 0)
        agree(server.look(video), said[videos[0]], list(METHODS))
        assert server.figure('vidadapt_requests_total{outcome="turned_away"}') == 1
        assert server.figure('vidadapt_requests_total{outcome="answered"}') == 3


def test_clients_that_go_away_or_send_too_slowly_leave_nothing_behind(
    predictor, videos, said, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    video = videos[0].read_bytes()
    with running(predictor, seconds=3.0) as server:
        gone, slow = begun_upload(server.port, video), begun_upload(server.port, video)
        wait_until(lambda: server.ask("GET", "/health").body["in_hand"] == 2)
        gone.close()
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        slow.close()
        wait_until(lambda: server.ask("GET", "/health").body["in_hand"] == 0)
        agree(server.look(video), said[videos[0]], list(METHODS))
        assert server.figure('vidadapt_requests_total{outcome="given_up"}') == 1
        assert list(tmp_path.glob("vidadapt_serve_*")) == []


def test_decoders_that_are_killed_are_replaced_and_no_request_is_lost(predictor, videos, said):
    others = set(decoders_of(os.getpid()))  # of servers of other tests
    with running(predictor, workers=2) as server, ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            asked = threads.map(lambda path: server.look(path.read_bytes()), videos * 4)
            for process in decoders_of(os.getpid()):
                if process not in others:
                    os.kill(process, signal.SIGKILL)
            for path, reply in zip(videos * 4, asked, strict=True):
                agree(reply, said[path], list(METHODS))
        assert server.figure("vidadapt_decoders_replaced") >= 4


def test_an_adapter_whose_scores_are_not_finite_fails_alone(folders, videos, said):
    predictor = Predictor(folders)
    with running(predictor, workers=2, wait=0.5) as server:
        [group] = [one for one in predictor.groups if "probe" in one.bank.names]
        for tensor in group.bank._tasks["probe"].model.head.parameters():
            tensor.fill_(torch.nan)
        with ThreadPoolExecutor(4) as threads:
            asked = [(path, name) for path in videos[:3] for name in ("probe", "inside")]
            replies = list(threads.map(lambda one: server.look(one[0].read_bytes(), one[1]), asked))
        for (path, name), reply in zip(asked, replies, strict=True):
            if name == "probe":
                assert reply.status == 500 and "NonFinite" in reply.body["detail"]
            else:
                agree(reply, said[path], [name])


def test_what_the_server_says_of_itself(server, predictor):
    assert server.ask("GET", "/health").body == {
        "status": "ok",
        "adapters": list(METHODS),
        "in_hand": 0,
        "limit": 64,
    }
    known = server.ask("GET", "/adapters").body
    assert [one["name"] for one in known] == list(METHODS)
    assert known[1]["labels"] == ["red", "green", "blue"] and known[1]["crop_size"] == 32
    api = server.ask("GET", "/openapi.json").body
    assert set(api["paths"]) == {"/health", "/adapters", "/predict", "/predict/path"}
    page = server.ask("GET", "/")
    assert page.status == 200 and b"predict" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/docs", "/redoc", "/etc/passwd", "/..%2f..%2fetc/passwd"):
        assert server.ask("GET", path).status == 404


@pytest.mark.slow
def test_the_command_ends_after_what_it_has_in_hand(folders, videos, tmp_path):
    mark = f"SERVED_BY={tmp_path}"
    chosen = [str(folders[name].parent) for name in ("probe", "inside")]
    command = [sys.executable, "-m", "vidadapt", "serve", *chosen, "--port", "0"]
    server = subprocess.Popen(
        [*command, "--num_workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SERVED_BY": str(tmp_path)},
    )
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        found = re.search(r"serving probe/best, inside/best at http://127\.0\.0\.1:(\d+) ", line)
        assert found, line
        video = videos[0].read_bytes()
        begun = begun_upload(int(found[1]), video)
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        begun.sendall(video[100:])
        assert begun.recv(100).startswith(b"HTTP/1.1 200")
        begun.close()
        out, err = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 0, err
    assert "1 answered" in out and err == ""
    wait_until(lambda: not processes_with(mark))


@pytest.mark.slow
def test_ctrl_c_twice_ends_the_command_whatever_its_decoders_do(folders, videos):
    command = [sys.executable, "-m", "vidadapt", "serve", str(folders["probe"]), "--port", "0"]
    server = subprocess.Popen([*command, "--num_workers", "1"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
        video = videos[0].read_bytes()
        for process in decoders_of(server.pid):
            os.kill(process, signal.SIGSTOP)
        asked = begun_upload(port, video)
        asked.sendall(video[100:])
        time.sleep(1.0)
        for _ in range(2):
            server.send_signal(signal.SIGINT)
            time.sleep(0.5)
        out, _ = server.communicate(timeout=30)
    finally:
        server.kill()
    assert "1 failed" in out
    asked.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--port", "99999"], "--port"),
        (["--queue", "0"], "--queue"),
        (["--time_limit", "nan"], "--time_limit"),
        (["--max_upload", "-1"], "--max_upload"),
        (["--data.root", "x"], "--data.root"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(folders, options, named, capsys):
    with pytest.raises(ConfigError, match=named):
        load_tool("serve").parse([str(folders["probe"]), *options])


def test_an_address_that_is_taken_and_a_root_that_is_none_are_refused_at_once(folders, tmp_path):
    with pytest.raises(ConfigError, match="--root"):
        load_tool("serve").main(
            [str(folders["probe"]), "--root", str(tmp_path / "no"), "--port", "0"]
        )
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="--port"),
    ):
        port = str(taken.getsockname()[1])
        load_tool("serve").main([str(folders["probe"]), "--port", port, "--device", "cpu"])


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [380, 1400])
def test_the_page_shows_what_is_seen_in_a_video(browser, server, videos, said, tmp_path, width):
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 20)
    opened(browser, f"http://127.0.0.1:{server.port}/", width)
    wait.until(lambda _: len(parts(browser, "#adapters input")) == 3)
    parts(browser, "#adapters input")[2].click()
    browser.find_element("id", "file").send_keys(str(videos[0]))
    wait.until(lambda _: len(parts(browser, "#seen h2")) == 2)
    first = parts(browser, "#seen ol")[1].find_elements("css selector", "li")[0]
    name, share = said[videos[0]]["inside"][0]
    assert first.text.split("\n") == [name, f"{100 * share:.1f} %"]
    number, overlaps = browser.execute_script(OVERLAPS)
    assert number > 8 and overlaps == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    browser.find_element("id", "file").send_keys(str(broken))
    wait.until(lambda _: "fault" in browser.find_element("id", "state").get_attribute("class"))
    assert "broken.mp4: " in browser.find_element("id", "state").text
    [line] = browser.get_log("browser")
    assert "400" in line["message"]  # chromium lists every answer that is no 200
    assert not browser.find_element("id", "result").is_displayed()
    asked = browser.execute_script(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert all(one.startswith((f"http://127.0.0.1:{server.port}/", "blob:")) for one in asked)


def begun_upload(port: int, video: bytes) -> socket.socket:
    """A connection on which the first 100 bytes of a video have been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: {len(video)}\r\n\r\n"
    connection.sendall(head.encode() + video[:100])
    return connection


def wait_until(true: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
