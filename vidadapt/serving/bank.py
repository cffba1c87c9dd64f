"""Many adapters on one backbone in memory.

    bank = AdapterBank.for_adapter("runs/ssv2/best", weights="videomae_vit_b.pth")
    bank.add("ssv2", "runs/ssv2/best")
    bank.add("hmdb51", "runs/hmdb51/best")
    bank.logits(clips, "ssv2")                           # (B, 174)
    bank.logits(clips, ["ssv2", "hmdb51", "ssv2", ...])  # one task a clip, in one forward pass
    bank.all_logits(clips)                               # every task on every clip
    bank.features(clips)                                 # the plain backbone, no adapter
    bank.compare(clips, "ssv2", "hmdb51")                # top labels of two adapters
    bank.remove("ssv2")

A task is a copy of the backbone's modules that shares the backbone's tensors, with the method
applied; so it costs only its own tensors. Clips are uint8, as the loaders give them: each task
normalises them as in its training. Use a bank in one thread at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from vidadapt import methods
from vidadapt.config import ModelConfig
from vidadapt.data import normalize
from vidadapt.models import READ_OUT, VideoModel, put_head
from vidadapt.runs import (
    SavedAdapter,
    adapters,
    backbone_differences,
    plain_backbone,
    refuse_backbone,
    refuse_differences,
)
from vidadapt.serving import replay
from vidadapt.serving.routing import CannotRoute, Pass, apart, passes

# Combinations of tasks whose passes are kept: n tasks have 2^n of them.
KEPT_PASSES = 64


@dataclass(frozen=True)
class _Task:
    adapter: SavedAdapter
    model: VideoModel
    leaves_features: bool


class AdapterBank:
    """One frozen backbone, any number of adapters.

    Args:
        model: the backbone and its weights; `head` is each adapter's own.
        num_frames: T of all clips.
        crop_size: S of all clips, pixels.
        segments: of all clips, see `data.Sampling`.
        device: of all tensors.

    Raises:
        ValueError, FileNotFoundError: sizes or weights that do not fit.
    """

    def __init__(
        self,
        model: ModelConfig,
        *,
        num_frames: int,
        crop_size: int,
        segments: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = adapters.without_head(model)
        self.plan = adapters.bare_plan(num_frames, crop_size, segments)
        self.device = torch.device(device)
        plain, _, self.fingerprint = plain_backbone(self.config, self.plan)
        self._plain = plain.to(self.device)
        self._tasks: dict[str, _Task] = {}
        self._passes: dict[tuple[str, ...], list[Pass]] = {}

    @classmethod
    def for_adapter(
        cls,
        folder: str | Path,
        *,
        weights: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> AdapterBank:
        """An empty bank with the backbone and the clip size that an adapter was trained with.

        Args:
            weights: the backbone's weights; default: see `load_adapter`.
        """
        adapter = adapters.read_adapter(folder)
        model = adapters.with_weights(adapter, weights).model
        return cls(
            model,
            num_frames=adapter.plan.sampling.num_frames,
            crop_size=adapter.plan.crop_size,
            segments=adapter.plan.sampling.segments,
            device=device,
        )

    def add(self, name: str, folder: str | Path) -> SavedAdapter:
        """Put an adapter on the backbone; it costs `own_bytes(name)`.

        That is the size of its file; method `full`, which has trained the backbone itself, costs
        a whole backbone.

        Raises:
            ValueError: the name is taken; the folder is damaged; or it was trained on another
                backbone or other clips, with every difference.
        """
        if name in self._tasks:
            raise ValueError(f"{name!r} is in the bank already; remove it, or choose another name")
        adapter = adapters.read_adapter(folder)
        about, plan = adapter.about, adapter.plan
        refuse_differences(
            adapter.source,
            backbone_differences(about, self.config, self.plan, "in the bank"),
        )
        model = _sharing_copy(self._plain)
        own = adapter.config.model
        put_head(model, own.head, plan.num_classes, own.head_depth, own.head_heads)
        methods.apply(model, adapter.config.method)
        if not adapters.holds_all(model, adapter.tensors):
            weights = f"the bank's ({self.config.weights})"
            refuse_backbone(adapter.source, about, self.fingerprint, weights)
        _unshare(model, self._plain, adapter.tensors)
        methods.load_trainable_state(model, adapter.tensors, adapter.source)
        model.to(self.device).eval().requires_grad_(False)
        self._tasks[name] = _Task(adapter, model, replay.leaves_features(model, self._plain))
        return adapter

    def remove(self, name: str) -> None:
        """Forget an adapter and free its memory.

        Raises:
            ValueError: no such adapter.
        """
        self._task(name)
        del self._tasks[name]
        self._passes = {key: kept for key, kept in self._passes.items() if name not in key}

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order in which they were added."""
        return tuple(self._tasks)

    def adapter(self, name: str) -> SavedAdapter:
        """Contents of an adapter's file: labels, views, metrics."""
        return self._task(name).adapter

    def own_bytes(self, name: str) -> int:
        """Bytes of the tensors that an adapter does not share with the backbone."""
        shared = {id(tensor) for tensor in _tensors(self._plain)}
        own = {id(t): t.nbytes for t in _tensors(self._task(name).model) if id(t) not in shared}
        return sum(own.values())

    @torch.no_grad()
    def features(self, clips: Tensor, *, normalization: str = "imagenet") -> Tensor:
        """Features of clips from the plain backbone, without any adapter.

        Args:
            clips: (B, 3, T, S, S) uint8.
            normalization: key of `data.transforms.NORMALIZATIONS`.

        Returns:
            What `forward_features` gives: (B, N, D) tokens, or (B, T, D) frame by frame.
        """
        return self._plain.forward_features(self._normalized(clips, normalization))

    @overload
    def logits(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, clips: Tensor, tasks: str
    ) -> Tensor: ...
    @overload
    def logits(self, clips: Tensor, tasks: Sequence[str]) -> list[Tensor]: ...

    @torch.no_grad()
    def logits(self, clips: Tensor, tasks: str | Sequence[str]) -> Tensor | list[Tensor]:
        """Run each clip through the adapter and the head of its task.

        A batch that mixes tasks takes one forward pass in which frozen layers that the tasks have
        in common run once on all clips. Tasks that cannot share a pass (side networks and in-block
        methods, different numbers of shallow prompts) take as few as possible.

        Args:
            clips: (B, 3, T, S, S) uint8.
            tasks: the task of all clips, or B names.

        Returns:
            (B, K) float32 for one task; for B names B tensors (K of that clip's task,).

        Raises:
            ValueError: no such adapter, not as many names as clips, or clips of another shape or
                type.
        """
        if isinstance(tasks, str):
            return self._read_out(tasks, self._tokens({tasks: clips})[tasks])
        if len(tasks) != len(clips):
            raise ValueError(f"{len(clips)} clips, but {len(tasks)} tasks: give one for each clip")
        rows = {name: [i for i, task in enumerate(tasks) if task == name] for name in tasks}
        tokens = self._tokens({name: clips[rows[name]] for name in sorted(rows)})
        found: dict[int, Tensor] = {}
        for name, places in rows.items():
            found |= dict(zip(places, self._read_out(name, tokens[name]), strict=True))
        return [found[i] for i in range(len(clips))]

    @torch.no_grad()
    def all_logits(self, clips: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Run all clips through every task, or those named.

        Tasks that leave the backbone's features as they are (`linear`, `losa`) share one pass.

        Args:
            clips: (B, 3, T, S, S) uint8.

        Returns:
            name -> (B, K) float32.
        """
        chosen = {name: self._task(name) for name in (self.names if names is None else names)}
        found: dict[str, Tensor] = {}
        for kind in {task.adapter.plan.normalization for task in chosen.values()}:
            alike = {
                name: task.model
                for name, task in chosen.items()
                if task.leaves_features and task.adapter.plan.normalization == kind
            }
            if not alike:
                continue
            ready = self._normalized(clips, kind)
            tokens, outputs = replay.record(self._plain, ready)
            for name, model in alike.items():
                own = replay.features_from(model, tokens, outputs)
                found[name] = self._read_out(name, own)
        for name in chosen.keys() - found.keys():
            found[name] = self.logits(clips, name)
        return {name: found[name] for name in chosen}

    def compare(
        self, clips: Tensor, *names: str, top: int = 5
    ) -> list[dict[str, list[tuple[str, float]]]]:
        """Top labels of adapters for the same clips.

        Args:
            clips: (B, 3, T, S, S) uint8.
            names: two or more; none: all.

        Returns:
            For each clip: name -> its `top` most probable labels, each with its probability.
        """
        logits = self.all_logits(clips, names or None)
        said: list[dict[str, list[tuple[str, float]]]] = [{} for _ in range(len(clips))]
        for name, values in logits.items():
            adapter = self.adapter(name)
            shares = values.sigmoid() if adapter.plan.multi_label else values.softmax(dim=1)
            best = shares.topk(min(top, values.shape[1]), dim=1)
            for clip, numbers, probabilities in zip(
                said, best.indices.tolist(), best.values.tolist(), strict=True
            ):
                labels = [adapter.label(number) for number in numbers]
                clip[name] = list(zip(labels, probabilities, strict=True))
        return said

    def _task(self, name: str) -> _Task:
        if name not in self._tasks:
            held = ", ".join(self.names) or "no adapter"
            raise ValueError(f"{name!r} is not in the bank, which holds {held}")
        return self._tasks[name]

    def _normalized(self, clips: Tensor, normalization: str) -> Tensor:
        want = self._plain.clip_shape
        if clips.dtype != torch.uint8 or tuple(clips.shape[1:]) != want or len(clips) == 0:
            raise ValueError(
                f"clips: expected uint8 (B, {', '.join(map(str, want))}), B not 0, got "
                f"{clips.dtype} {tuple(clips.shape)}; another geometry needs a bank of its own"
            )
        return normalize(clips.to(self.device, non_blocking=True), normalization)

    def _tokens(self, clips: dict[str, Tensor]) -> dict[str, Tensor]:
        """Task -> tokens of the task's own clips."""
        ready = {
            name: self._normalized(part, self._task(name).adapter.plan.normalization)
            for name, part in clips.items()
        }
        key = tuple(ready)
        if key not in self._passes:
            if len(self._passes) >= KEPT_PASSES:
                del self._passes[next(iter(self._passes))]
            self._passes[key] = passes({name: self._tasks[name].model for name in key})
        found: dict[str, Tensor] = {}
        waiting = list(self._passes[key])
        while waiting:
            group = waiting.pop()
            try:
                found |= group.features({name: ready[name] for name in group.models})
            except CannotRoute:
                waiting += (parts := apart(group))
                self._passes[key] = [p for p in self._passes[key] if p is not group] + parts
        return found

    def _read_out(self, name: str, tokens: Tensor) -> Tensor:
        return self._task(name).model.forward_head(tokens).float()


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _sharing_copy(plain: VideoModel) -> VideoModel:
    """A copy of the modules that shares the tensors of `plain`, except those of the read-out."""
    own = {id(t) for part in READ_OUT for t in _tensors(getattr(plain, part))}
    memo: dict[int, Any] = {id(t): t for t in _tensors(plain) if id(t) not in own}
    return copy.deepcopy(plain, memo)


def _unshare(model: VideoModel, plain: VideoModel, tensors: dict[str, Tensor]) -> None:
    """Give the model its own copy of shared tensors that its method has trained.

    Those are the parameters that the method made trainable (biases for BitFit, all for full), and
    the buffers whose values in the file differ from the backbone's.
    """
    shared = {id(tensor) for tensor in _tensors(plain)}
    copies: dict[int, nn.Parameter] = {}
    for place, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.requires_grad and id(parameter) in shared:
                if id(parameter) not in copies:
                    copies[id(parameter)] = nn.Parameter(parameter.detach().clone())
                module._parameters[name] = copies[id(parameter)]
        for name, buffer in module._buffers.items():
            saved = tensors.get(f"{place}.{name}".lstrip("."))
            if buffer is None or saved is None or id(buffer) not in shared:
                continue
            if buffer.shape != saved.shape or not torch.equal(buffer, saved.to(buffer)):
                module._buffers[name] = buffer.clone()
    plain.requires_grad_(False)
