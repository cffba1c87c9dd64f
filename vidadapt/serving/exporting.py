"""Write a run's model as one plain weights file, or as a folder of Hugging Face's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidadapt import data, methods
from vidadapt.config import parse_evaluate, require_imported
from vidadapt.data import NORMALIZATIONS, Framing
from vidadapt.files import write_json
from vidadapt.models import (
    READ_OUT,
    VideoModel,
    VideoViT,
    VJepaViT,
    fold_batchnorm,
    huggingface_form,
    plain_state,
    write_plain,
)
from vidadapt.runs import adapters, checkpoints, load_adapted_model, load_adapter

# Methods that add no tensors to the backbone: there is nothing to merge.
ADD_NOTHING = ("full", "linear", "bitfit")


def export(
    checkpoint: Path, out: Path, layout: str, dtype: torch.dtype, weights: Path | None
) -> float | None:
    """Write a run's model as a plain file or folder, its method merged into the backbone.

    Args:
        checkpoint: a run's folder (its `best`, else its `last`), one of these, or `hub:OWNER/NAME`.
        layout: key of `models.plain.LAYOUTS`.
        weights: of the backbone; None: the run's model.weights.

    Returns:
        The largest change of a logit through merging, folding and rounding. None where nothing is
        computed: the backbone of a fully fine-tuned run is copied.

    Raises:
        ValueError: the checkpoint is damaged, its plug-ins have not been imported, its method
            cannot be merged, the layout cannot hold its head or positions, its backbone is neither
            a tubelet ViT nor V-JEPA (but a fully fine-tuned one may be of any kind in the layout
            backbone), or numbers overflow in fp16.
    """
    checkpoint = adapters.find_adapter(checkpoint, "checkpoint")
    tensors, about = checkpoints.load_checkpoint(checkpoint)
    require_imported(about, checkpoint / checkpoints.DESCRIPTION)
    name = about["method"]["name"]
    if name == "full" and layout == "backbone":
        backbone = {key: t for key, t in tensors.items() if key.partition(".")[0] not in READ_OUT}
        write_plain(out, backbone, layout, dtype)
        return None
    if name not in methods.MERGES and name not in ADD_NOTHING:
        raise ValueError(
            f"{checkpoint}: method {name} cannot be merged into the backbone: "
            f"{methods.why_unmergeable(name)}; keep the adapter beside the backbone"
        )
    model = _load(checkpoint, about["format"], weights)
    if not isinstance(model, VideoViT | VJepaViT):
        raise ValueError(
            f"{checkpoint}: its backbone is {model.name}, whose merged weights no layout holds; "
            "only tubelet ViTs and V-JEPA are exported. In Python, methods.merge(model, name) "
            "merges it"
        )
    clips = torch.randn(4, *model.clip_shape, generator=torch.Generator().manual_seed(0))
    before = _logits(model, clips)
    if name in methods.MERGES:
        methods.merge(model, name)
    model.head = fold_batchnorm(model.head)
    if layout == "huggingface":
        form, state = huggingface_form(model)
    else:
        state = plain_state(model, layout)
    change = (_logits(model.to(dtype).float(), clips) - before).abs().max().item()
    exact = dtype == torch.float32
    limit = 1e-4 * max(1.0, before.abs().max().item()) if exact else torch.inf
    if not change < limit:  # not a number, too
        raise ValueError(
            f"{checkpoint}: merging changed a logit by {change:.1e}, which is more than rounding"
            f"{'' if exact else '; choose --dtype fp32'}; nothing was written"
        )
    if layout == "huggingface":
        _write_folder(out, form, state, dtype, about)
    else:
        write_plain(out, state, layout, dtype)
    return change


def _write_folder(
    out: Path, form: dict[str, Any], state: dict[str, Tensor], dtype: torch.dtype, about: Any
) -> None:
    """Write model.safetensors, config.json and preprocessor_config.json to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    names = about["label_names"] or [f"class {number}" for number in range(about["num_classes"])]
    mean, std = NORMALIZATIONS[about["clip"]["normalization"]]
    side, framing = about["clip"]["crop_size"], Framing.of(about["clip"])
    square = {"height": side, "width": side}
    squashed = framing.fit == "squash"
    write_plain(out / "model.safetensors", state, "huggingface", dtype)
    write_json(
        out / "config.json",
        {
            **form,
            "id2label": {str(number): name for number, name in enumerate(names)},
            "label2id": {name: number for number, name in enumerate(names)},
            "problem_type": f"{'multi' if about.get('multi_label') else 'single'}"
            "_label_classification",
            "dtype": str(dtype).removeprefix("torch."),
        },
    )
    write_json(
        out / "preprocessor_config.json",
        {
            **{"do_rescale": True, "do_normalize": True, "do_resize": True},
            "do_center_crop": not squashed,
            "resample": {"bilinear": 2, "bicubic": 3}[framing.interpolation],  # Pillow's numbers
            **{"rescale_factor": 1 / 255, "image_mean": list(mean), "image_std": list(std)},
            "size": square if squashed else {"shortest_edge": framing.resize or side},
            "crop_size": square,
        },
    )


def _load(checkpoint: Path, format: str, weights: Path | None) -> VideoModel:
    if format != "vidadapt-adapter-1":
        return load_adapter(checkpoint, weights=weights)[0]
    # The first format does not stand alone: the run's config.yaml has the rest.
    given = [] if weights is None else ["--model.weights", str(weights)]
    run = ["--run_dir", str(checkpoint.parent), *given]
    config, _ = parse_evaluate(run, methods.METHODS)
    assert config is not None
    return load_adapted_model(config, data.resolve(config.data, config.eval), checkpoint)


@torch.no_grad()
def _logits(model: VideoModel, clips: Tensor) -> Tensor:
    return model.eval()(clips)
