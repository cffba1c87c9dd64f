"""The cost of a method on a backbone: parameters, file, FLOPs, memory, time.

Parameters, file and FLOPs are counted on a model without storage, so that they take no memory and
no time. Memory and time are measured on real training steps, in a process of their own
(`in_fresh_process`), so that no measurement disturbs the next.

Conventions:
 - A multiply-add is 2 FLOPs. Only matrix products and convolutions are counted, as torch's counter
   does: no norms, softmax, activations or biases. Attention counts as its plain products, since a
   fused kernel computes one of them again in backward (5 in place of 4), and which kernel runs
   depends on the device.
 - Bytes kept for backward: what autograd saves in forward, each storage once, without the model's
   own parameters and buffers. In bf16 it includes the bf16 copies of trained weights that autocast
   makes; frozen ones are in bf16 themselves.
 - Peak memory holds the model, gradients, optimiser state and activations; not torch itself.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from vidadapt import methods, models
from vidadapt.config import Within, import_named
from vidadapt.models import Precision, VideoModel, autocast, cast_frozen
from vidadapt.processes import end_with_parent
from vidadapt.training import (
    build_optimizer,
    parameter_groups,
    peak_memory,
    reset_peak,
    set_lr,
)

NOISY_PERCENT = 10  # a spread above it is pointed out


@dataclass(frozen=True)
class Setting:
    """All that stays the same while methods are compared.

    Attributes:
        backbone: as `models.build` takes it; its weights are random.
        num_frames: T of a clip.
        crop_size: S of a clip, pixels.
        num_classes: K.
        from_image: how an image model (timm/NAME) becomes a video model: inflate (default) or
            frames.
        head: key of `HEADS`.
        head_depth: blocks of `vjepa_attentive`.
        tubelet_size: frames of a token.
        patch_size: pixels of a token's side.
        drop_path: rate of stochastic depth.
        batch_size: clips of a training step.
        precision: what autocast computes in; here `auto` is none.
        device: of the measured steps.
        recompute: what the measured steps compute again in backward, as --train.recompute of
            vidadapt train; FLOPs are counted without it.
        optimizer: of the measured steps.
        compile: measure steps of the model as `torch.compile` makes it.
    """

    backbone: str = "vit_base"
    num_frames: int = 8
    crop_size: int = 224
    num_classes: int = 174
    from_image: str | None = None
    head: str = "batchnorm_linear"
    head_depth: int | None = None
    tubelet_size: int = 2
    patch_size: int | None = None
    drop_path: float = 0.0
    batch_size: Annotated[int, Within("[1, inf)")] = 2
    precision: Precision = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    recompute: methods.Recompute = "none"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    compile: bool = False


@dataclass(frozen=True)
class Counts:
    """The figures that are counted. FLOPs are of one clip; training is forward and backward."""

    trainable: int
    total: int
    share_percent: float
    adapter_bytes: int
    forward_flops_per_clip: int
    training_flops_per_clip: int


@dataclass(frozen=True)
class Measurements:
    """Memory and time of a training step.

    Attributes:
        backward_bytes_per_clip: kept from forward to backward; None of a compiled model, whose
            graph would be made for the looking.
        peak_memory_bytes: of a whole step; None where the system does not tell (CPU, not Linux).
        step_seconds: median of forward, backward and optimiser step.
        step_spread_percent: of the timed steps, see `spread_percent`.
        steps: how many were timed.
        threads: of torch on the CPU.
    """

    backward_bytes_per_clip: int | None
    peak_memory_bytes: int | None
    step_seconds: float
    step_spread_percent: float
    steps: int
    threads: int


def count(setting: Setting, method: dict[str, Any]) -> Counts:
    """Parameters, file size and FLOPs, without computing anything.

    Args:
        method: {"name": key of METHODS, **options}.

    Raises:
        ValueError: the backbone does not exist, the method is not defined on it, or an option
            cannot be met.
    """
    with torch.device("meta"):
        model = adapted_random_model(setting, method)
    trainable, total = methods.count_parameters(model)
    size = adapter_bytes(model)
    # Fake tensors on the CPU, since autocast, which a method may use, refuses the meta device.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        clip, targets = batch(setting, torch.device("cpu"))
        forward, backward = flops(model, clip, targets)
    return Counts(
        trainable=trainable,
        total=total,
        share_percent=100 * trainable / total,
        adapter_bytes=size,
        forward_flops_per_clip=round(forward / setting.batch_size),
        training_flops_per_clip=round((forward + backward) / setting.batch_size),
    )


def measure(
    setting: Setting, method: dict[str, Any], *, steps: int, threads: int | None
) -> Measurements:
    """Memory and time of training steps; for a fresh process.

    Args:
        steps: timed ones, after a warm-up.
        threads: of torch on the CPU; None: as many as it takes by itself.

    Raises:
        ValueError: as `count`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device(setting.device)
    torch.manual_seed(0)
    nn.Linear(64, 64, device=device)(torch.randn(64, 64, device=device)).sum().backward()
    before = reset_peak(device)
    model = adapted_random_model(setting, method).to(device)
    methods.recompute_blocks(model, setting.recompute)
    cast_frozen(model, device, setting.precision)
    clip, targets = batch(setting, device)
    groups = parameter_groups(model, depth=model.depth, weight_decay=0.0, layer_decay=1.0)
    optimizer = build_optimizer(setting.optimizer, groups)
    set_lr(optimizer, 1e-3)

    def loss() -> Tensor:
        with autocast(device, setting.precision):
            logits = model(clip)
        return cross_entropy(logits.float(), targets)

    def finish(value: Tensor) -> None:
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    kept = None
    if setting.compile:
        model.compile()
        finish(loss())
    else:
        value, kept = backward_bytes(model, loss)
        finish(value)
    seconds = step_seconds(
        lambda: finish(loss()), device, warmup=0 if device.type == "cpu" else 5, steps=steps
    )
    peak = peak_memory(device)
    median = statistics.median(seconds)
    return Measurements(
        backward_bytes_per_clip=None if kept is None else round(kept / setting.batch_size),
        peak_memory_bytes=None if peak is None or before is None else peak - before,
        step_seconds=median,
        step_spread_percent=spread_percent(seconds),
        steps=steps,
        threads=torch.get_num_threads(),
    )


def bare_model(setting: Setting) -> VideoModel:
    """The backbone with its head, of random weights.

    Raises:
        ValueError: unknown names or impossible sizes.
    """
    shape = ("num_frames", "crop_size", "num_classes", "tubelet_size", "patch_size")
    kind = ("from_image", "head", "head_depth", "drop_path")
    options = {key: getattr(setting, key) for key in (*shape, *kind)}
    return models.build(setting.backbone, **options)[0]


def adapted_random_model(setting: Setting, method: dict[str, Any]) -> VideoModel:
    """The backbone of random weights with the method applied, ready for training steps."""
    model = bare_model(setting)
    methods.apply(model, method)
    methods.train_mode(model)
    return model


def batch(setting: Setting, device: torch.device) -> tuple[Tensor, Tensor]:
    """A random batch: clips (B, 3, T, S, S) float32 and labels (B,) int64."""
    side = setting.crop_size
    shape = (setting.batch_size, 3, setting.num_frames, side, side)
    labels = torch.arange(setting.batch_size, device=device) % setting.num_classes
    return torch.randn(shape, device=device), labels


def adapter_bytes(model: nn.Module) -> int:
    """Size of the safetensors file that a run saves of this model; the model may be on meta."""
    state = methods.trainable_state(model)
    return len(save({name: torch.zeros(t.shape, dtype=t.dtype) for name, t in state.items()}))


def flops(model: nn.Module, clip: Tensor, targets: Tensor) -> tuple[int, int]:
    """(forward, backward) FLOPs of the batch's cross-entropy; gradients are left on the model."""
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = cross_entropy(model(clip), targets)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def backward_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """The loss, and the bytes that its graph keeps beside the model's own tensors."""
    own = {
        tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())
    }
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that its address is not used again
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    return value, sum(storage.nbytes() for storage in kept.values())


def step_seconds(
    step: Callable[[], None], device: torch.device, *, warmup: int, steps: int
) -> list[float]:
    """Wall-clock seconds of each of `steps` calls after `warmup` calls, the device waited for."""
    seconds = []
    for number in range(warmup + steps):
        _wait(device)
        began = time.perf_counter()
        step()
        _wait(device)
        if number >= warmup:
            seconds.append(time.perf_counter() - began)
    return seconds


def spread_percent(values: Sequence[float]) -> float:
    """(largest - smallest) / median, per cent.

    >>> spread_percent([1.0, 1.1, 0.9])
    20.0
    """
    return round(100 * (max(values) - min(values)) / statistics.median(values), 1)


def in_fresh_process(
    function: Callable[..., Any], *arguments: Any, plugins: Sequence[str] = (), **options: Any
) -> Any:
    """Call a function in a new process, which ends when this one is killed; return its result.

    Args:
        plugins: modules that the process imports first.

    Raises:
        MemoryError: the process was killed, as a rule for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    begin: dict[str, Any] = {"initializer": _begin, "initargs": (plugins,)}
    with ProcessPoolExecutor(1, mp_context=context, **begin) as pool:
        try:
            return pool.submit(function, *arguments, **options).result()
        except BrokenProcessPool as error:
            raise MemoryError(
                "the measuring process was killed, as a rule for want of memory; lower the batch "
                "size or the number of frames"
            ) from error


def _begin(plugins: Sequence[str]) -> None:
    end_with_parent()
    import_named(plugins)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
