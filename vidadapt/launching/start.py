"""Start and end a process, under torchrun or alone."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from vidadapt.distributed import ANSWER, LostProcess, PeerError, Stopped, World
from vidadapt.launching.failures import kind_named, kind_of, message_of

MEETING = 600.0  # seconds that the processes of all machines have to find each other
GRACE = 20.0  # seconds that a process has to end by itself after another one has failed
FAILED = "failed"  # key of the store: what a process that failed says of it


def start(timeout_minutes: float = 30.0) -> World:
    """Join the processes that torchrun started; without torchrun, return a world of one.

    The device is the GPU of the local rank, or the CPU where there is none. nccl serves GPUs,
    gloo the CPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {local_rank} of this machine has no GPU of its own: there are "
                f"{torch.cuda.device_count()}; lower torchrun's --nproc-per-node"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size > 1:
        end_with_torchrun()
        store = met(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, size)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(minutes=timeout_minutes),
        )
        end_with_the_others(store.clone(), rank)
        control: Any = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        return World(rank, size, device, control, store=store)
    return World(rank, size, device)


def end_with_torchrun() -> None:
    """Make this process end when torchrun is killed, so that it does not run on alone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_with_the_others(store: dist.Store, rank: int) -> None:
    """Make this process end soon after another one has failed, wherever it waits.

    torchrun ends the processes of the machine where one fails. Those of other machines should
    learn of it in their next exchange, but gloo misses a closed connection now and then (a process
    that left four of them: up to 1 time in 80), and they would wait until `patience_minutes` end.
    Without the process that keeps the store, which is rank 0 or its torchrun, it ends, too.

    Args:
        store: for this alone; a store serves one thread at a time.
    """
    group = dist.group.WORLD

    def watch() -> None:
        other, since = "", 0.0
        while dist.group.WORLD is group:  # until `stop`
            time.sleep(1)
            try:
                if not other and store.check([FAILED]):
                    other, since = store.get(FAILED).decode(), time.monotonic()
            except RuntimeError:
                other, since = "the one that keeps their store has ended", time.monotonic()
            if other and time.monotonic() > since + GRACE:
                line = f"[rank {rank}] error: lost another process: {other}"
                print(line, file=sys.stderr, flush=True)
                os._exit(kind_named("lost_process").status)

    threading.Thread(target=watch, daemon=True).start()


def met(address: str, port: int, rank: int, size: int) -> dist.Store:
    """Make a store that these processes share, without entries of earlier processes.

    torchrun keeps one store over its restarts, and its agents do not count restarts alike on all
    machines. So each process stores a random number there, rank 0 collects the numbers into a
    plan, and all agree on it before they begin; the plan's hash names their part of the store.

    Raises:
        LostProcess: they do not agree within `MEETING` seconds.
    """
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    patience = timedelta(seconds=MEETING)
    store = dist.TCPStore(address, port, None, hosted and rank == 0, patience, multi_tenant=True)
    own = uuid.uuid4().hex
    store.set(f"here/{rank}", own)
    everyone = [f"here/{other}" for other in range(size)]
    deadline = time.monotonic() + MEETING
    while time.monotonic() < deadline:
        if rank == 0 and store.check(everyone):
            store.set("plan", json.dumps([store.get(key).decode() for key in everyone]))
        plan = json.loads(store.get("plan")) if store.check(["plan"]) else []
        if len(plan) == size and plan[rank] == own:
            name = hashlib.sha256("".join(plan).encode()).hexdigest()
            store.set(f"{name}/agreed/{rank}", "")
            if rank == 0 and store.check([f"{name}/agreed/{other}" for other in range(size)]):
                store.set(f"{name}/begin", "")
            if store.check([f"{name}/begin"]):
                return dist.PrefixStore(name, store)
        time.sleep(0.05)
    raise LostProcess(f"the {size} processes did not find each other within {MEETING:g} s")


def restarted() -> bool:
    """Check whether torchrun started these processes anew after a failure (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started for a block; its errors are raised as they are.

    Without torchrun it is a world of one, in a notebook, too.
    """
    world = start()
    try:
        yield world
    except BaseException as error:
        _tell_the_others(world, error)
        raise
    finally:
        stop()


def launch(main: Callable[[World], int | None], goes_on: str = "") -> None:
    """Run a tool in this process, one of those that torchrun started or alone.

    An error is printed as one line, a bug with its traceback, a crash in native code with the calls
    of all threads; the exit status tells its kind, see `failures`. Otherwise the exit status is
    what `main` returns.

    Args:
        goes_on: added to the message if it is interrupted or stopped.
    """
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
    world = World(0, 1, torch.device("cpu"))
    try:
        world = start()
        status = main(world)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        _fail(world, error, goes_on)
    stop()
    if status:
        sys.exit(status)


def alone(main: Callable[[], int | None], goes_on: str = "") -> NoReturn:
    """Run a tool that has one process, as `launch` does.

    Args:
        goes_on: added to the message if it is interrupted.
    """
    try:
        status = main()
    except (Exception, KeyboardInterrupt) as error:
        _fail(World(0, 1, torch.device("cpu")), error, goes_on)
    sys.exit(status)


def _fail(world: World, error: BaseException, goes_on: str = "") -> NoReturn:
    """Print what went wrong and end, without waiting for peers that may never answer."""
    kind, line = kind_of(error), message_of(error)
    if kind.name in ("interrupted", "stopped"):
        text = f"{line}{goes_on}" if world.is_main else ""
    elif isinstance(error, PeerError):
        text = ""
    else:
        lost = kind.name == "lost_process"
        named = world.rank > 0 or (lost and world.size > 1)
        text = f"[rank {world.rank}] error: {line}" if named else f"error: {line}"
        if kind.name == "bug":
            traceback.print_exception(error)
            text += f" ({type(error).__name__}, a fault of this program: please report it)"
        if not lost:
            _tell_torchrun(world, text)
    _tell_the_others(world, error)
    if text:
        print(text, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if world.size > 1:
        # A peer's exit makes torchrun end the others: give the one that failed time to report.
        if isinstance(error, PeerError):
            time.sleep(2)
        os._exit(kind.status)
    sys.exit(kind.status)


def _tell_the_others(world: World, error: BaseException) -> None:
    """Leave word of an error for `end_with_the_others`, unless another process was faster."""
    if world.store is None or isinstance(error, (PeerError, Stopped)):  # all know of these
        return
    with contextlib.suppress(RuntimeError):  # the machine that keeps the store has ended
        world.store.set_timeout(timedelta(seconds=ANSWER))
        world.store.compare_set(FAILED, "", f"rank {world.rank}: {message_of(error)}")


def _tell_torchrun(world: World, text: str) -> None:
    """Write torch's error file: torchrun ends its report with what the first process wrote."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if world.size > 1 and file:
        about = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps({"message": about}), encoding="utf-8")
