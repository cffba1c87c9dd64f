"""Adapter files: what a method trained, and all that is needed to use it again.

A folder of `adapter.safetensors` (trainable tensors and buffers) and `adapter.json` (readable):
with the file of the backbone's weights, nothing else is needed. `load_adapter` loads it in one
call; `vidadapt.serving.AdapterBank` serves several adapters from one backbone.

adapter.json may come from a stranger, so the weights that it names are only a hint. They are used
unasked if they are no file (`demo`, `random`), or if config.yaml of the run that the folder belongs
to names the same file. All others, and always those from the hub, must be named by the caller.
"""

from __future__ import annotations

import functools
import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidadapt import methods
from vidadapt.config import Config, ConfigError, ModelConfig, require_imported, yaml_files
from vidadapt.console import printable
from vidadapt.data import Augmentation, DataPlan, Sampling, normalize
from vidadapt.files import is_url
from vidadapt.models import WITHOUT_FILE, VideoModel, is_hub_name, require_shape
from vidadapt.runs import checkpoints, from_hub, from_store
from vidadapt.runs.adapter_json import FORMATS, check_description, config_of, plan_of
from vidadapt.runs.assemble import adapted_model
from vidadapt.runs.differences import differences, refuse_backbone, refuse_differences
from vidadapt.runs.folder import RunError

LARGEST_NORMALISED = 10.0  # a normalised pixel is within -3..3; floats up to 255 are not


@dataclass(frozen=True, repr=False)
class SavedAdapter:
    """An adapter folder that has been read.

    Attributes:
        folder: its path.
        tensors: name -> trained tensor or buffer.
        about: the content of adapter.json.
        config: the same, as a configuration; `config.model.weights` is None where the caller must
            name them, see above.
        plan: its clips, classes and views.
    """

    folder: Path
    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]
    config: Config
    plan: DataPlan

    def __repr__(self) -> str:
        return printable(f"SavedAdapter({str(self.folder)!r}: {self.summary})")

    @property
    def summary(self) -> str:
        """Method, backbone, classes and clips, in a few words."""
        plan, config = self.plan, self.config
        values = sum(tensor.numel() for tensor in self.tensors.values())
        return (
            f"{config.method['name']} on {config.model.backbone}, {plan.num_classes} classes, "
            f"{plan.sampling.num_frames} frames of {plan.crop_size} pixels, {values:,} values"
        )

    @property
    def source(self) -> str:
        return str(self.folder / checkpoints.TENSORS)

    @property
    def classes(self) -> tuple[int, tuple[str, ...] | None, bool]:
        """Number and names of classes, and whether a video has several: equal for adapters whose
        labels mean the same."""
        return self.plan.num_classes, self.plan.label_names, self.plan.multi_label

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the K classes, in label order, see `label`."""
        return tuple(map(self.label, range(self.plan.num_classes)))

    def label(self, number: int) -> str:
        """Return the name of a class, or its number where the adapter was trained without names."""
        names = self.plan.label_names
        known = names is not None and 0 <= number < len(names)
        return names[number] if names is not None and known else f"class {number}"


def save_adapter(folder: str | Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write an adapter folder, replacing the one of the same name.

    Args:
        model: with the method applied; its trainable tensors and buffers are written.
        description: from `describe`, with `metrics` filled in by the caller.

    Raises:
        WriteError: the disk refused; the previous folder stays whole.
    """
    checkpoints.save_checkpoint(Path(folder), methods.trainable_state(model), description)


def load_adapter(
    folder: str | Path, *, weights: str | Path | None = None
) -> tuple[VideoModel, SavedAdapter]:
    """Load an adapter: the adapted model, in eval mode, and the content of its files.

    The model takes clips (B, 3, T, S, S): uint8, which it normalises as in training, or floats that
    are normalised already.

    Args:
        folder: holds adapter.safetensors and adapter.json, or `hub:OWNER/NAME` or a URL, see
            `from_hub` and `from_store`; see also `find_adapter`.
        weights: the backbone's weights; default: those that may be used unasked, see above. The
            file of a full fine-tuning holds them itself.

    Raises:
        ValueError: a damaged file, another backbone than the adapter's, or weights that the caller
            must name; the message says which.
        FileNotFoundError: no such weights.
    """
    adapter = read_adapter(folder)
    alone = weights is None and adapter.config.method["name"] == "full"
    config = adapter.config if alone else with_weights(adapter, weights)
    model = load_adapted_model(config, adapter.plan, adapter.folder)
    model.register_forward_pre_hook(functools.partial(_ready, adapter.plan.normalization))
    return model, adapter


def _ready(
    normalization: str, model: VideoModel, clips: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor] | None:
    """Normalise uint8 clips for a model of `load_adapter`; None: the clips stay as they are.

    Raises:
        ValueError: floats that are not normalised, or uint8 clips of another shape.
    """
    if len(clips) != 1:
        return None
    clip = clips[0]
    if clip.dtype == torch.uint8:
        require_shape(clip, model.clip_shape)
        return (normalize(clip, normalization),)
    if torch.compiler.is_compiling() or not clip.is_floating_point() or clip.numel() == 0:
        return None
    largest = clip.detach().abs().amax().item()
    if largest > LARGEST_NORMALISED:
        raise ValueError(
            f"clip holds floats up to {largest:.4g}, which are not normalised; give uint8, which "
            f"is normalised here ({normalization})"
        )
    return None


def with_weights(adapter: SavedAdapter, weights: str | Path | None) -> Config:
    """Return the adapter's configuration with the backbone's weights to use.

    Args:
        weights: as the caller names them; None: those that may be used unasked, see above.

    Raises:
        ConfigError: they must be named, or the run's own file is missing.
    """
    model = adapter.config.model
    if weights is not None:
        return replace(adapter.config, model=replace(model, weights=str(weights)))
    if model.weights in WITHOUT_FILE:
        return adapter.config
    named = adapter.about["model"].get("weights")
    shown = printable(str(named))
    if named is None:
        why = "was trained on a random backbone, without model.weights; give them"
    elif is_hub_name(named):
        why = f"names the weights {shown}, and nothing is fetched that you do not name; give them"
    elif model.weights is None:
        why = (
            f"names the weights {shown}, and no file is opened that neither you nor the run's "
            "config.yaml beside the folder name; give them"
        )
    elif not Path(model.weights).exists():
        why = f"was trained on the weights {shown}, which is not there; give the file"
    else:
        return adapter.config
    value = shlex.quote(shown) if named is not None else "FILE"
    raise ConfigError(
        f"{adapter.folder / checkpoints.DESCRIPTION}: {why} with --weights {value} "
        f"(vidadapt evaluate: --model.weights {value}; Python: weights={value!r}, of vidadapt.load "
        f"backbone={value!r}). Weights other than those of its training are refused"
    )


def _usable_unasked(folder: Path, model: ModelConfig) -> ModelConfig:
    """Return the model's configuration, without weights that a caller must name."""
    if model.weights is None or model.weights in WITHOUT_FILE:
        return model
    run = Path(os.path.abspath(folder)).parent / "config.yaml"  # noqa: PTH100 (no links resolved)
    if not is_hub_name(model.weights) and run.is_file():
        of_run = yaml_files.read_yaml(run, "run_dir").get("model")
        if isinstance(of_run, dict) and of_run.get("weights") == model.weights:
            return model
    return replace(model, weights=None)


def find_adapter(folder: str | Path, key: str = "--adapter") -> Path:
    """Return an adapter folder as it is; for a run's folder its `best` if it has one, else `last`.

    Args:
        key: option that gives the folder, for messages.
        folder: or `hub:OWNER/NAME`, or the URL of a folder in a store, which is fetched.

    Raises:
        ConfigError: it is neither.
        RunError, HubError: see `from_hub.fetched`.
    """
    folder = local_folder(folder)
    if (folder / checkpoints.DESCRIPTION).is_file():
        return folder
    if not folder.is_dir():
        raise ConfigError(f"{key}: the folder {folder} does not exist")
    return checkpoint_folder(folder, None, key)


def local_folder(folder: str | Path) -> Path:
    """Return a folder as it is; for `hub:OWNER/NAME` or a URL that of the fetched adapter or run.

    Raises:
        RunError, HubError, OSError: see `from_hub.fetched`, `from_store.fetched`.
    """
    if is_url(folder):
        return from_store.fetched(str(folder))
    return from_hub.fetched(folder) if from_hub.is_reference(folder) else Path(folder)


def checkpoint_folder(run_dir: Path, wanted: str | None, key: str = "--checkpoint") -> Path:
    """Find `best` (of a development list) if the run has one, else `last`; or the one wanted."""
    for name in (wanted,) if wanted else ("best", "last"):
        found = checkpoints.find_checkpoint(run_dir / name)
        if found is not None:
            return found
    raise ConfigError(
        f"{key}: {run_dir} holds no {wanted or 'best or last'} checkpoint; a run writes one "
        "at the end of each epoch (best only with data.dev_list)"
    )


def read_adapter(folder: str | Path) -> SavedAdapter:
    """Read an adapter folder, or an adapter of the hub.

    Raises:
        RunError: missing, damaged or incomplete, naming the file; or of format 1, which
            does not say how clips are cut and views fused.
        ConfigError: config.yaml beside the folder cannot be read.
    """
    folder = local_folder(folder)
    tensors, about = _read(folder)
    file = folder / checkpoints.DESCRIPTION
    if about["format"] == "vidadapt-adapter-1":
        raise RunError(
            f"{file}: format vidadapt-adapter-1 does not hold the sampling and the fusion of its "
            "evaluation; evaluate it with vidadapt evaluate --run_dir, whose config.yaml holds "
            "them, or train again"
        )
    home = from_hub.origin(folder) or from_store.origin(folder) or str(folder.parent)
    try:
        config, plan = config_of(about, home), plan_of(about)
        check_description(about, config, plan)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{file}: is incomplete, or was written by another version of vidadapt ({error!r})"
        ) from error
    config = replace(config, model=_usable_unasked(folder, config.model))
    return SavedAdapter(folder, tensors, about, config, plan)


def _read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, about = checkpoints.load_checkpoint(folder)
    if about.get("format") not in FORMATS:
        raise RunError(
            f"{folder / checkpoints.DESCRIPTION}: format {about.get('format')!r} is none of "
            f"{', '.join(FORMATS)}; update vidadapt"
        )
    require_imported(about, folder / checkpoints.DESCRIPTION)
    return tensors, about


def bare_plan(num_frames: int, crop_size: int, segments: int = 1) -> DataPlan:
    """Make a plan for clips of this shape, of no particular data set: all that a backbone needs."""
    sampling = Sampling("segments", num_frames, 1, 1, 1, segments)
    return DataPlan("custom", 1, None, sampling, Augmentation(), 1, 1, crop_size, "imagenet")


def with_views(plan: DataPlan, num_clips: int | None, num_crops: int | None) -> DataPlan:
    """Return the plan with other views at evaluation; None: its own.

    Raises:
        ValueError: fewer than one.
    """
    num_clips = plan.num_clips if num_clips is None else num_clips
    num_crops = plan.num_crops if num_crops is None else num_crops
    sampling = replace(plan.sampling, num_clips=num_clips, num_crops=num_crops)
    return replace(plan, sampling=sampling, num_clips=num_clips, num_crops=num_crops)


def load_adapted_model(config: Config, plan: DataPlan, folder: Path) -> VideoModel:
    """Load the model of an adapter folder, in eval mode, if it fits the configuration.

    Reads format 1, too.

    Raises:
        RunError, ValueError: a missing or damaged file, or one that was trained with another
            method, backbone, geometry, number of classes or label names; the message says which.
    """
    tensors, about = _read(folder)
    source = str(folder / checkpoints.TENSORS)
    refuse_differences(source, differences(about, config, plan))
    config = replace(config, model=without_head_of_file(config.model))
    # A file that holds every parameter (full fine-tuning) needs no backbone.
    model, _, backbone = adapted_model(config, plan, load_backbone=False)
    if not holds_all(model, tensors):
        model, _, backbone = adapted_model(config, plan)
        refuse_backbone(source, about, backbone, f"model.weights ({config.model.weights})")
    methods.load_trainable_state(model, tensors, source)
    return model.eval()


def without_head_of_file(model: ModelConfig) -> ModelConfig:
    """Return the configuration of a model whose head is an adapter's: no file is read for it."""
    return replace(model, keep_head=False, head_weights=None, head_weights_key=None)


def without_head(model: ModelConfig) -> ModelConfig:
    """Return the configuration of a backbone alone: it gets a new linear head."""
    bare = without_head_of_file(model)
    return replace(bare, head="linear", head_depth=None, head_heads=None, drop_path=0.0)


def holds_all(model: nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    """Check that a file holds every parameter of the model, so that it needs no backbone."""
    return {name for name, _ in model.named_parameters()} <= tensors.keys()
