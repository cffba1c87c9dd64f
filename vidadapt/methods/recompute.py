"""Keep less for the backward pass: compute parts of the blocks again when it needs them.

`recompute_blocks` works on any finished model. Parameters, their names and results stay as they
are: what is computed again sees the same inputs and random numbers. Where nothing would be kept (no
gradients, eval mode, blocks that no graph reaches), nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, get_device_states, set_device_states

from vidadapt.methods.losa import SideNetwork
from vidadapt.models import Block, VideoModel

Recompute = Literal["none", "mlp", "block"]


def recompute_blocks(model: VideoModel, what: Recompute) -> None:
    """Make training steps compute parts of the model's blocks again.

    Args:
        model: with its method applied; edited in place. A copy of it recomputes, too.
        what: `none`; `mlp`: norm2 and the MLP as far as its backward pass needs them, which leaves
            out the product with fc2 where only its input's gradient is wanted; or `block`: each
            block as a whole, with what the method put into it.

    LoSA keeps nothing inside the blocks, which run without a graph; its side network is left alone.
    """
    if what == "mlp":
        for block in [module for module in model.modules() if isinstance(module, Block)]:
            halves = MlpAgain(block.norm2, block.mlp, model.head)
            block.norm2.forward, block.mlp.forward = halves.run_norm, halves.run_mlp
    elif what == "block":
        for slot in model.slots():
            whole: nn.Module = slot.block
            if not isinstance(whole, SideNetwork):
                whole.forward = BlockAgain(whole, model.head).run


# Their methods replace modules' `forward`. They are bound methods, which a deepcopy of the model
# copies; closures would go on computing with the modules of the original.


@dataclass(eq=False)
class BlockAgain:
    """A block, or a method's wrapper of one, that keeps its input alone.

    Attributes:
        block: called with tokens, which it returns.
        head: of the model; in train mode exactly while the model is trained.
    """

    block: nn.Module
    head: nn.Module

    def run(self, x: Tensor) -> Tensor:
        forward = _own_forward(self.block)
        return _again(forward, x) if _keeps(self.block, x, self.head) else forward(x)


@dataclass
class Normed:
    """Input and output of norm2's last call, and the random state before it, if it is random."""

    stream: Tensor
    output: Tensor
    random: RandomState | None


@dataclass(eq=False)
class MlpAgain:
    """norm2 and MLP of a block, which keep nothing inside but what norm2 itself keeps.

    A block, or a method's wrapper, calls one after the other; the wrapper may use norm2's output
    elsewhere as well. The output is not kept for the MLP, but made again from the stream, which
    norm2 keeps anyway. Its gradient flows through the first norm2.

    Attributes:
        norm, mlp: the modules.
        head: as in `BlockAgain`.
        normed: between the calls of the two.
    """

    norm: nn.Module
    mlp: nn.Module
    head: nn.Module
    normed: Normed | None = None

    def run_norm(self, stream: Tensor) -> Tensor:
        is_random = any(module.training for module in self.norm.modules())
        random = RandomState.now(stream) if is_random else None
        output = _own_forward(self.norm)(stream)
        if _keeps(self.mlp, output, self.head):
            self.normed = Normed(stream, output, random)
        return output

    def run_mlp(self, x: Tensor) -> Tensor:
        normed, self.normed = self.normed, None
        forward = _own_forward(self.mlp)
        if not _keeps(self.mlp, x, self.head):
            return forward(x)
        if normed is None or normed.output is not x:
            return _again(forward, x)  # not from norm2 alone, so it has to be kept
        norm, random, requires_grad = _own_forward(self.norm), normed.random, x.requires_grad
        # Emptied by the first run, so that the graph, which holds this function, does not hold it.
        first = [x]

        def from_stream(stream: Tensor) -> Tensor:
            if first:
                return forward(first.pop())
            with torch.no_grad(), replayed(random):
                output = norm(stream)
            return forward(output.detach().requires_grad_(requires_grad))

        return _again(from_stream, normed.stream)


@dataclass(frozen=True)
class RandomState:
    """State of torch's random number generators, of the CPU and of a tensor's device."""

    device_type: str
    cpu: Tensor
    devices: list[int]
    states: list[Tensor]

    @staticmethod
    def now(x: Tensor) -> RandomState:
        return RandomState(x.device.type, torch.get_rng_state(), *get_device_states(x))


@contextmanager
def replayed(state: RandomState | None) -> Iterator[None]:
    """Draw random numbers from this state within; afterwards as if none had been drawn."""
    if state is None:
        yield
        return
    with torch.random.fork_rng(devices=state.devices, device_type=state.device_type):
        torch.set_rng_state(state.cpu)
        set_device_states(state.devices, state.states, device_type=state.device_type)
        yield


def _own_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the forward of a module's class, which `recompute_blocks` has replaced."""
    return functools.partial(type(module).forward, module)


def _keeps(module: nn.Module, x: Tensor, head: nn.Module) -> bool:
    """Return whether a training step keeps anything of this module for its backward pass."""
    # A frozen module is in eval mode even in training, see `methods.train_mode`; the head never is.
    if not (torch.is_grad_enabled() and head.training):
        return False
    return x.requires_grad or any(p.requires_grad for p in module.parameters())


def _again(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=True)
