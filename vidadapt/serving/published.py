"""A published classifier, used as it is: no run, no adapter, only a weights file and a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vidadapt import data, runs
from vidadapt.config import Config, ConfigError
from vidadapt.data import DATASETS, DataPlan, normalize
from vidadapt.files import checksum
from vidadapt.hub import PREFIX
from vidadapt.models import PublishedHead, VideoModel
from vidadapt.runs import SavedAdapter

METHOD = "published"  # in the place of a method's name
USUAL = ("model", "pytorch_model", "model.safetensors.index", "pytorch_model.bin.index")


@dataclass(frozen=True)
class Published:
    """A classifier of a weights file, and what it is to see; not loaded yet.

    Attributes:
        config: with the head that the file holds.
        plan: clips, classes and views.
        head: what the file holds.
        class_order: how its classes are those of the data, in words.
    """

    config: Config
    plan: DataPlan
    head: PublishedHead
    class_order: str

    @property
    def name(self) -> str:
        """A short name: of the file, or of its folder or repository where it has a usual one."""
        given, path = str(self.config.model.weights), self.head.head_path
        if self.head.probe is None and given.startswith(PREFIX):
            return given.removeprefix(PREFIX).replace("/", "--")
        return path.resolve().parent.name if path.stem in USUAL else path.stem

    @property
    def about(self) -> dict[str, Any]:
        """What scores come from, as JSON: file, head, and the way to clips."""
        sampling, probe = self.plan.sampling, self.head.probe
        about = {
            "weights": str(self.config.model.weights),
            "weights_file": str(self.head.path),
            "weights_sha256": checksum(self.head.path),
            "head": str(self.head),
            "class_order": self.class_order,
            "sampling": self.config.data.sampling,
            "stride": sampling.stride,
        }
        if probe is not None:
            about |= {"head_file": str(probe.path), "head_sha256": checksum(probe.path)}
        return about


def find_published(config: Config, of_list: Sequence[str] | None) -> Published:
    """Find the classifier that a configuration asks for.

    Args:
        config: with `model.head from_file`; lists are found.
        of_list: class names of the list to score; None: it has none.

    Raises:
        ConfigError, ValueError: no classifier, other classes, or no protocol.
    """
    of = config.data
    if of.sampling is None:
        raise ConfigError(
            "data.sampling: is not set; a published classifier is scored by the protocol that it "
            "was published with: e.g. videomae_dense (VideoMAE on Kinetics), videomae_ssv2, "
            "vjepa2_ssv2; data.num_frames and eval.num_clips change its numbers"
        )
    config, head = runs.head_of_file(config)
    dataset = DATASETS.get(of.dataset)
    fixed = None if dataset is None else dataset.num_classes
    names, order = runs.class_names(head, of_list, config.model.class_order, fixed)
    numbered = [f"class {number}" for number in range(head.num_classes)]
    plan = data.resolve(of, config.eval, numbered if names is None else names)
    # No run has trained it: the method, its options and those of training mean nothing.
    config = replace(config, method={"name": "linear"})
    return Published(config, replace(plan, label_names=names), head, order)


def load_published(found: Published, device: torch.device) -> tuple[VideoModel, str]:
    """Load the classifier, frozen, in eval mode; also what was loaded, in words.

    Raises:
        ValueError, FileNotFoundError: weights that do not fit, naming file and key.
    """
    model, report, _ = runs.adapted_model(found.config, found.plan)
    return model.to(device).eval().requires_grad_(False), str(report)


class PublishedBank:
    """A published classifier in the place of `AdapterBank`, for predictions.

    Args:
        found: from `find_published`.
        device: where to compute.

    Raises:
        ValueError, FileNotFoundError: see `load_published`.
    """

    def __init__(self, found: Published, device: torch.device) -> None:
        self._model, self.report = load_published(found, device)
        self._saved = SavedAdapter(found.head.head_path, {}, {}, found.config, found.plan)
        self.names = (found.name,)

    def adapter(self, name: str) -> SavedAdapter:
        """Labels and views."""
        return self._saved

    @torch.no_grad()
    def all_logits(self, clips: Tensor) -> dict[str, Tensor]:
        """Clips (B, 3, T, S, S) uint8 to name -> (B, K) float32."""
        ready = normalize(clips, self._saved.plan.normalization)
        return {self.names[0]: self._model(ready).float()}
