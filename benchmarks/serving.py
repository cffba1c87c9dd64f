"""A server under load, on this machine alone: throughput, latency, overload, and injected faults.

    python -m benchmarks.serving RUN... --json benchmarks/results/serving/DAY.json

Two servers (`vidadapt serve`) have the runs' adapters: one that puts several videos into a forward
pass, and one that does not (--max_batch 1: each video's views go together, alone). Clients, in this
process, send test videos of the first run as uploads. Every answer is compared with what
`Predictor` says of the video, so a lost, doubled or mixed-up answer is found.

  load      contenders take turns: one request after the other without batches, many clients
            without batches, many clients with batches
  overload  ten times as many clients as the server takes at once; who is turned away asks again
  faults    decoders are killed, and damaged, cut and broken off uploads sent, between sound ones

RUN has to lie where its configuration finds its lists and videos.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.exported import test_videos
from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish
from benchmarks.timing import Target
from vidadapt.console import track
from vidadapt.runs import adapters
from vidadapt.serving import GivenVideo, Predictor, names_of

COLUMNS = {
    "clients": ("clients", "d"),
    "requests": ("requests", ",d"),
    "requests/s": ("per_second", ".1f"),
    "p50 ms": ("p50_ms", ".0f"),
    "p99 ms": ("p99_ms", ".0f"),
    "turned away": ("turned_away", ",d"),
    "wrong": ("wrong", "d"),
    "lost": ("lost", "d"),
}
ALONE = "one by one"
PLAIN, BATCHED = "at once, a video a pass", "at once, in batches"
TURNED_AWAY = 429
TOLERANCE = 1e-4  # of probabilities: sums in another order


@dataclass
class Told:
    """What clients were told.

    Attributes:
        seconds: of each request that was answered, from its first byte to the end of its answer.
        turned_away: answers 429.
        wrong: answers that are not `Predictor`'s.
        lost: sound requests without an answer: another status, or no connection.
        faulty: statuses of what was sent damaged, and how each was.
    """

    seconds: list[float] = field(default_factory=list)
    turned_away: int = 0
    wrong: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    faulty: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Request:
    """A video's bytes, the adapters to ask, and what each says: label -> probability."""

    video: bytes
    query: str
    wanted: dict[str, dict[int, float]]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "serving", {"rounds": 1, "clients": 1, "requests": 1, "faults": 0})
    requests = requests_of(args.run, args.videos)
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    with server(args.run, "--max_batch", "1") as (plain, _), server(args.run) as (batched, pid):
        rows += under_load(args, requests, plain, batched)
        rows.append(under_faults(args, requests, batched, pid, rng))
    with server(args.run, "--queue", str(args.queue)) as (small, _):
        rows.append(over_loaded(args, requests, small))
    args.run = [run.name for run in args.run]
    by_name = {row["name"]: row for row in rows}
    ratio = statistics.median(
        b / a for a, b in zip(by_name[ALONE]["rates"], by_name[BATCHED]["rates"], strict=True)
    )
    bound = args.bound_ms
    targets = [
        Target(f"{BATCHED} : {ALONE}, requests/s", 2.0, ">=", ratio),
        *(
            Target(f"{name}: p99, ms", bound, "<=", by_name[name]["p99_ms"])
            for name in (ALONE, BATCHED)
        ),
        Target("wrong answers", 0, "<=", sum(row["wrong"] for row in rows)),
        Target("lost requests", 0, "<=", sum(row["lost"] for row in rows)),
        Target("injected faults", args.faults, ">=", by_name["faults"]["faults"]),
    ]
    finish(args, "serving", rows, targets, rows_table(rows, COLUMNS, "load"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="+", help="folders of runs on one backbone")
    parser.add_argument("--videos", type=int, default=100, help="of the test list (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="at once (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of the load (%(default)s)")
    parser.add_argument("--requests", type=int, default=5000, help="with faults (%(default)s)")
    parser.add_argument("--faults", type=int, default=200, help="at least (%(default)s)")
    parser.add_argument("--queue", type=int, default=16, help="of the overload (%(default)s)")
    parser.add_argument("--bound_ms", type=float, default=500.0, help="of p99 (%(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def requests_of(folders: Sequence[Path], videos: int) -> list[Request]:
    """Requests for all adapters of some test videos, with what `Predictor` says of them."""
    _, files = test_videos(folders[0])
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, videos, dtype=int)]
    found = [adapters.find_adapter(folder) for folder in folders]
    predictor = Predictor(dict(zip(names_of(found), found, strict=True)))
    given = [GivenVideo(path) for path in dict.fromkeys(chosen)]
    requests = []
    for said in track(predictor(given, top=1000), total=len(given), label="predict", unit="videos"):
        wanted = {
            name: {guess.label: guess.probability for guess in guesses}
            for name, guesses in said.guesses.items()
        }
        for name in wanted:
            one = {name: wanted[name]}
            requests.append(Request(Path(said.video.path).read_bytes(), f"?adapter={name}", one))
    random.Random(0).shuffle(requests)
    return requests


@contextlib.contextmanager
def server(folders: Sequence[Path], *options: str) -> Iterator[tuple[str, int]]:
    """Run vidadapt serve; yields its address and its process id."""
    command = [sys.executable, "-m", "vidadapt", "serve", *map(str, folders), "--port", "0"]
    running = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            sys.exit("serving: the server did not start; see above")
        yield found[0], running.pid
    finally:
        running.terminate()
        said, _ = running.communicate(timeout=90)
        print(said.strip(), file=sys.stderr)
        if running.returncode:
            sys.exit(f"serving: the server ended with status {running.returncode}")


def under_load(
    args: argparse.Namespace, requests: Sequence[Request], plain: str, batched: str
) -> list[dict[str, Any]]:
    """Contenders in turns; the first round does not count."""
    contenders = {ALONE: (plain, 1), PLAIN: (plain, args.clients), BATCHED: (batched, args.clients)}
    told = {name: Told() for name in contenders}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    rounds = range(args.rounds + 1)
    for number in track(rounds, total=len(rounds), label="load", unit="rounds"):
        for name, (address, clients) in contenders.items():
            mine = Told() if number == 0 else told[name]
            began = time.monotonic()
            asyncio.run(send(address, requests, clients, mine))
            if number:
                rates[name].append(len(requests) / (time.monotonic() - began))
    return [
        {
            **row(name, contenders[name][1], args.rounds * len(requests), told[name]),
            "per_second": statistics.median(rates[name]),
            "rates": rates[name],
        }
        for name in contenders
    ]


def over_loaded(
    args: argparse.Namespace, requests: Sequence[Request], address: str
) -> dict[str, Any]:
    """Ten clients for each request that the server takes at once."""
    told, clients = Told(), 10 * args.queue
    asked = [requests[number % len(requests)] for number in range(max(clients * 5, len(requests)))]
    began = time.monotonic()
    asyncio.run(send(address, asked, clients, told, again=True))
    rate = len(asked) / (time.monotonic() - began)
    return {**row("overload", clients, len(asked), told), "per_second": rate}


def under_faults(
    args: argparse.Namespace,
    requests: Sequence[Request],
    address: str,
    server: int,
    rng: random.Random,
) -> dict[str, Any]:
    """Sound requests, while a third of the faults are killed decoders, and the others uploads."""
    told = Told()
    asked: list[Request | Callable[[Told], Coroutine[Any, Any, None]]] = [
        requests[number % len(requests)] for number in range(args.requests)
    ]
    kills = args.faults // 3 + 1
    for number in range(args.faults - kills + 1):
        video = rng.choice(requests).video
        fault = (cut, flipped, noise, too_large, broken_off)[number % 5]
        asked.insert(rng.randrange(len(asked)), _sent(fault, address, video, rng))
    killed = 0

    async def kill(ended: asyncio.Event) -> None:
        nonlocal killed
        while not ended.is_set() and killed < kills:
            await asyncio.sleep(rng.uniform(0.5, 3.0))
            if decoders := decoders_of(server):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(decoders), signal.SIGKILL)
                    killed += 1

    async def both() -> None:
        ended = asyncio.Event()
        killing = asyncio.create_task(kill(ended))
        await send(address, asked, args.clients, told)
        ended.set()
        await killing

    began = time.monotonic()
    asyncio.run(both())
    rate = len(asked) / (time.monotonic() - began)
    scratch = len(list(Path(tempfile.gettempdir()).glob("vidadapt_serve_*")))
    return {
        **row("faults", args.clients, args.requests, told),
        "per_second": rate,
        "faults": killed + sum(told.faulty.values()),
        "killed": killed,
        "damaged": dict(told.faulty),
        "scratch_files_left": scratch,
    }


def row(name: str, clients: int, requests: int, told: Told) -> dict[str, Any]:
    p50, p99 = np.percentile([*told.seconds, 0.0][: len(told.seconds) or 1], [50, 99]) * 1e3
    return {
        "name": name,
        "clients": clients,
        "requests": requests,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "turned_away": told.turned_away,
        "wrong": told.wrong,
        "lost": requests - len(told.seconds),
        "causes": dict(told.lost),
    }


async def send(
    address: str, asked: Sequence[Any], clients: int, told: Told, again: bool = False
) -> None:
    """Let `clients` send the requests, each the next one when it has its answer.

    Args:
        again: who is turned away asks again after a moment; else the request counts as lost.
    """
    waiting = iter(asked)
    limit = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(address, connector=limit, timeout=timeout) as session:

        async def client() -> None:
            for one in waiting:
                if isinstance(one, Request):
                    await ask(session, one, told, again)
                else:
                    await one(told)

        await asyncio.gather(*(client() for _ in range(clients)))


async def ask(session: aiohttp.ClientSession, one: Request, told: Told, again: bool) -> None:
    began = time.monotonic()
    while True:
        try:
            path = f"/predict{one.query}&top=1000"
            async with session.post(path, data=one.video) as reply:
                body = await reply.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            told.lost[type(error).__name__] += 1
            return
        if reply.status != TURNED_AWAY or not again:
            break
        told.turned_away += 1
        await asyncio.sleep(random.uniform(0.05, 0.5))
    if reply.status != 200:
        told.lost[f"{reply.status} {body.get('detail', '')}"[:200]] += 1
        return
    told.seconds.append(time.monotonic() - began)
    found = {
        name: {guess["label"]: guess["probability"] for guess in seen["top"]}
        for name, seen in body["predictions"].items()
    }
    told.wrong += not same(found, one.wanted)


def same(found: dict[str, dict[int, float]], wanted: dict[str, dict[int, float]]) -> bool:
    """Compare what adapters say, probability by probability."""
    return found.keys() == wanted.keys() and all(
        found[name].keys() == wanted[name].keys()
        and all(abs(found[name][k] - share) <= TOLERANCE for k, share in wanted[name].items())
        for name in wanted
    )


def _sent(
    fault: Callable[..., bytes | None], address: str, video: bytes, rng: random.Random
) -> Callable[[Told], Coroutine[Any, Any, None]]:
    body = fault(video, rng)

    async def send_it(told: Told) -> None:
        if body is None:
            told.faulty[f"{fault.__name__}: {await break_off(address, video)}"] += 1
            return
        try:
            async with (
                aiohttp.ClientSession(address) as session,
                session.post("/predict", data=body) as reply,
            ):
                await reply.read()
                answer = str(reply.status)
        except aiohttp.ClientError:  # refused while it was sent
            answer = "connection closed"
        told.faulty[f"{fault.__name__}: {answer}"] += 1

    return send_it


def cut(video: bytes, rng: random.Random) -> bytes:
    return video[: rng.randrange(len(video))]


def flipped(video: bytes, rng: random.Random) -> bytes:
    found = bytearray(video)
    for _ in range(50):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def noise(video: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(video))


def too_large(video: bytes, rng: random.Random) -> bytes:
    return bytes(101_000_000)


def broken_off(video: bytes, rng: random.Random) -> None:
    """The connection ends in the middle of the upload."""


async def break_off(address: str, video: bytes) -> str:
    host, port = address.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: {len(video)}\r\n\r\n"
    writer.write(head.encode() + video[: len(video) // 2])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    return "closed"


def decoders_of(server: int) -> list[int]:
    """Processes that decode: children of the server's fork server."""
    servers = [one for one in children_of(server) if b"forkserver" in words_of(one)]
    return [child for one in servers for child in children_of(one)]


def children_of(process: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(file.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(file.parent.name))
    return found


def words_of(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


if __name__ == "__main__":
    main()
