"""Start and end of a process among others, under torchrun or alone."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from vidadapt.distributed import LostProcess, PeerError, World, is_broken_exchange
from vidadapt.naming import printable_lines

MEETING = 600.0  # seconds that the processes of all machines have to find each other


def start(timeout_minutes: float = 30.0) -> World:
    """Join the processes that torchrun started; alone, be a world of one.

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
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=met(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, size),
            rank=rank,
            world_size=size,
            timeout=timedelta(minutes=timeout_minutes),
        )
        control: Any = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        return World(rank, size, device, control)
    return World(rank, size, device)


def end_with_torchrun() -> None:
    """When torchrun is killed, this process ends, too, in place of going on without it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def met(address: str, port: int, rank: int, size: int) -> dist.Store:
    """A store that these processes share, without what earlier ones have left in it.

    torchrun keeps one store over its restarts, and the restarts of its agents are not counted alike
    on all machines. So each process shows a number of its own there, the first one puts those that
    it finds together, and all of them agree before they begin under that name.

    Raises:
        LostProcess: they do not within `MEETING` seconds.
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
    """Whether torchrun started these processes anew after a failure (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launch(main: Callable[[World], None], user_errors: tuple[type[Exception], ...]) -> None:
    """Run `main` in this process with one clear message for errors that the user can mend.

    `user_errors` are printed as one line by the first process that met them; anything else keeps
    its traceback. Every process ends with a non-zero status.
    """
    world = World(0, 1, torch.device("cpu"))
    try:
        world = start()
        main(world)
    except KeyboardInterrupt:
        if world.is_main:
            print("interrupted", file=sys.stderr, flush=True)
        os._exit(130) if world.size > 1 else sys.exit(130)
    except PeerError:
        _leave(world, None)
    except user_errors as error:
        _record(world, error)
        where = f"[rank {world.rank}] " if world.rank else ""
        _leave(world, f"{where}error: {_message(error)}")
    except LostProcess as error:
        _leave(world, f"[rank {world.rank}] {error}")
    except Exception as error:
        if is_broken_exchange(error):
            _leave(world, f"[rank {world.rank}] lost another process: {_message(error)}")
        _record(world, error)
        _leave(world, traceback.format_exc())
    stop()


def _record(world: World, error: Exception) -> None:
    """Write torch's error file, from which torchrun tells what the first rank met."""
    if world.size > 1:
        get_error_handler().record_exception(error)


def _message(error: Exception) -> str:
    """The error's own words; those of a loader's worker come wrapped in its traceback."""
    text = str(error).strip()
    own = text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text
    return printable_lines(own)  # libraries repeat what stands in a file


def leave(world: World, status: int) -> NoReturn:
    """End with an exit status, without waiting for peers."""
    sys.stdout.flush()
    if world.size > 1:
        os._exit(status)
    sys.exit(status)


def _leave(world: World, message: str | None) -> None:
    """Print, then end without waiting for peers that may never answer."""
    if message is not None:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if world.size > 1:
        # A peer's exit makes torchrun end the others: give the one that has something to say
        # the time to say it.
        if message is None:
            time.sleep(2)
        os._exit(1)
    sys.exit(1)
