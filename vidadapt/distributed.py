"""Start-up and tear-down of processes, and exact reductions; the only user of torch.distributed.

Everything works unchanged in a single process without torchrun.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Result = TypeVar("Result")

EXCHANGED_AT_ONCE = 2**25  # numbers; 128 MiB of fp32


@dataclass(frozen=True)
class World:
    """This process among its peers: `rank` of `size`, and the device that it computes on.

    `control` carries what the processes tell each other (errors, scores), on the CPU and with
    all the time that one of them may need alone, e.g. to count the frames of a large set.
    """

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks to the terminal."""
        return self.rank == 0


class PeerError(RuntimeError):
    """Another process failed in a step that all of them take together."""


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
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
        control: Any = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        return World(rank, size, device, control)
    return World(rank, size, device)


def restarted() -> bool:
    """Whether torchrun started these processes anew after a failure (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def together(world: World) -> Iterator[None]:
    """A step without communication that succeeds on all processes or fails on all of them.

    Whatever one process raises inside reaches every other as a `PeerError`, so that none goes on
    to wait for a peer that is gone.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    failures = gather_objects(world, None if error is None else str(error))
    first = next((rank for rank, message in enumerate(failures) if message is not None), None)
    if first is None:
        return
    if error is None:
        raise PeerError(f"rank {first}: {failures[first]}")
    if first != world.rank:
        raise PeerError(f"rank {first}: {failures[first]}") from error
    raise error


def main_first(world: World, step: Callable[[], Result]) -> Result:
    """A step that the main process may have to do alone: it returns from it before others begin.

    It succeeds on all processes or fails on all of them, see `together`.
    """
    for mains_turn in (True, False):
        with together(world):
            if world.is_main == mains_turn:
                result = step()
    return result


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
        where = f"[rank {world.rank}] " if world.rank else ""
        _leave(world, f"{where}error: {_message(error)}")
    except dist.DistError as error:
        _leave(world, f"[rank {world.rank}] lost another process: {_message(error)}")
    except Exception:
        _leave(world, traceback.format_exc())
    stop()


def _message(error: Exception) -> str:
    """The error's own words; those of a loader's worker come wrapped in its traceback."""
    text = str(error).strip()
    return text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text


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


def gather_objects(world: World, value: Any) -> list[Any]:
    """One picklable value from every process, in rank order, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value, group=world.control)
    return values


def sum_over_ranks(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Sum over the processes, in the tensor's own type (exact for integers)."""
    if world.size == 1:
        return tensor
    moved = tensor.to(world.device)
    dist.all_reduce(moved)
    return moved.to(tensor.device)


class _TotalOverRanks(torch.autograd.Function):
    """y = sum of the processes' x; so the gradient of each x is the sum of the processes' dy."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _TotalOverRanks.apply(gradient)


def total_over_ranks(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Sum over the processes that gradients pass through; the tensor is on `world.device`.

    What is differentiated is the sum of the processes' losses: the backward pass of each sums the
    gradients of all, so every process must take it.
    """
    if world.size == 1:
        return tensor
    return _TotalOverRanks.apply(tensor)


def average_buffers(world: World, model: nn.Module) -> None:
    """Replace each saved floating-point buffer (BatchNorm's) by its mean over the processes.

    The statistics then stand on every sample that was seen, not only on rank 0's.
    """
    if world.size == 1:
        return
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world.size


def average_gradients(
    world: World, parameters: Sequence[nn.Parameter], share: float, told: Sequence[float]
) -> torch.Tensor:
    """Replace every gradient by its mean over the clips that all processes have had.

    One exchange after the last backward, in the parameters' order, so that the order of sums is
    the same in every step and after every restart. (DistributedDataParallel exchanges while
    backward computes, in buckets whose layout its first step decides; for the few per cent of
    parameters that are trained here there is little to hide.) A parameter without a gradient counts
    as zero.

    Args:
        share: of the clips that this process should have had, those that it has had: 1, or less
            where some were skipped. Gradients are sums over these, divided by the whole number.
        told: small numbers of this process for all.

    Returns:
        (1 + told,) float32 on the device: the sums over the processes of `share` and `told`.
    """
    numbers = torch.tensor([share, *map(float, told)], device=world.device)
    if world.size == 1:
        if 0 < share < 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= share
        return numbers
    chunks = list(_chunks(parameters))
    flats = [
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chunk])
        for chunk in chunks
    ]
    for tensor in (numbers, *flats):
        dist.all_reduce(tensor)
    for chunk, flat in zip(chunks, flats, strict=True):
        flat /= numbers[0]
        parts = flat.split([parameter.numel() for parameter in chunk])
        for parameter, part in zip(chunk, parts, strict=True):
            parameter.grad = part.view_as(parameter)
    return numbers


def _chunks(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in their order, about `EXCHANGED_AT_ONCE` numbers together."""
    chunk: list[nn.Parameter] = []
    for parameter in parameters:
        chunk.append(parameter)
        if sum(p.numel() for p in chunk) >= EXCHANGED_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def mean_over_ranks(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Mean over the processes, summed in the order of ranks whatever the tensor's length."""
    if world.size == 1:
        return tensor
    everyones = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(everyones, tensor)
    total = everyones[0]
    for other in everyones[1:]:
        total = total + other
    return total / world.size


def require_equal_weights(world: World, tensors: Mapping[str, torch.Tensor]) -> None:
    """See that the processes begin with the same numbers.

    Raises:
        PeerError: they do not.
    """
    if world.size == 1:
        return
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    found = gather_objects(world, digest.hexdigest())
    if any(one != found[0] for one in found):
        raise PeerError("the processes begin with different weights")
