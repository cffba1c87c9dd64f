"""Facts that Hugging Face's files beside a weights file state, compared with the model.

No tensor tells the number of heads, the norms' epsilon or the normalisation of pixels; config.json
and preprocessor_config.json do. A key that they leave out has transformers' default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.console import printable
from vidadapt.models.backbone import BackboneOptions
from vidadapt.models.coverage import Pixels
from vidadapt.models.transformers_defaults import DEFAULTS, FAMILIES
from vidadapt.models.videoprism import SOFT_CAP

CONFIG = "config.json"
PREPROCESSING = ("video_preprocessor_config.json", "preprocessor_config.json")
COMPANIONS = (CONFIG, *PREPROCESSING)
LARGEST_FILE = 1 << 24  # bytes; the names of 100,000 classes take 3 MB

# Ours is 1e-6, as VideoMAE and V-JEPA trained. Files of VideoMAE say 1e-12, and transformers takes
# 1e-5 for the norm in front of their head: no prediction depends on it.
LARGEST_EPS = 1e-5
EXACT_GELU = ("gelu", "gelu_python")
TANH_GELU = ("gelu_fast", "gelu_new", "gelu_pytorch_tanh")  # of ViViT

# Shown in the load report.
SHOWN = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_spatial_layers"),
    *("num_temporal_layers", "num_attention_heads", "intermediate_size"),
    *("mlp_ratio", "patch_size", "tubelet_size", "layer_norm_eps", "use_mean_pooling"),
)


@dataclass(frozen=True)
class Stated:
    """A config.json.

    Attributes:
        path: the file.
        content: its keys.
    """

    path: Path
    content: dict[str, Any]

    @property
    def kind(self) -> str | None:
        """`model_type`, if it is one whose keys are known here."""
        named = self.content.get("model_type")
        return named if isinstance(named, str) and named in DEFAULTS else None

    def get(self, key: str) -> Any:
        """Value of a key, or transformers' default; None: the kind has no such key."""
        defaults = DEFAULTS.get(self.kind or "", {})
        of_both = isinstance(defaults.get("tubelet_size"), list)
        if of_both and key in ("tubelet_size", "patch_size"):  # one list for both
            value = self.content.get("tubelet_size", defaults["tubelet_size"])
            if isinstance(value, list) and len(value) == 3:
                return value[0] if key == "tubelet_size" else value[1]
            return value
        value = self.content.get(key, defaults.get(key))
        if isinstance(value, list) and value and value == value[:1] * len(value):
            return value[0]  # height and width
        return value

    @property
    def size(self) -> tuple[Any, Any]:
        """Width and depth."""
        parts = [self.get(key) for key in ("num_spatial_layers", "num_temporal_layers")]
        parted = all(isinstance(part, int) for part in parts)
        return self.get("hidden_size"), sum(parts) if parted else self.get("num_hidden_layers")

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Class names of `id2label`, in label order; None: it has none, or only `LABEL_0` ....

        Raises:
            ValueError: its keys are not the numbers from 0, or two classes have one name.
        """
        given = self.content.get("id2label")
        if given is None:
            return None
        try:
            named = {int(number): str(name) for number, name in given.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: id2label: expected numbers and names") from error
        if sorted(named) != list(range(len(named))) or len(named) != len(given):
            raise ValueError(
                f"{self.path}: id2label: expected the numbers 0 to {len(given) - 1}, each once"
            )
        names = tuple(named[number] for number in range(len(named)))
        if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
            return None
        if len(set(names)) < len(names):
            doubled = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{self.path}: id2label: two classes are named {printable(doubled)!r}")
        return names


def stated_beside(weights: Path) -> Stated | None:
    """Read the config.json in a folder of weights, or beside their file; None: there is none.

    Raises:
        ValueError: it cannot be read.
    """
    path = _folder(weights) / CONFIG
    if not path.is_file():
        return None
    content = _read(path)
    vision = content.get("vision_config")
    if content.get("model_type") == "videoprism" and isinstance(vision, dict):  # with a text tower
        content = {**content, **vision, "model_type": "videoprism_vision_model"}
    return Stated(path, content)


def compare(
    weights: Path,
    kind: str,
    name: str,
    sizes: Mapping[str, Any],
    options: BackboneOptions,
    known: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[str, ...], Pixels | None]:
    """Compare what the files beside the weights state with the model that is to be built.

    Args:
        weights: file, index or folder.
        kind: `model_type` of the backbone's family.
        name: of the backbone.
        sizes: that the model is built with, see `vit.SIZES`.
        options: of the model.
        known: sizes of the family's backbones.

    Returns:
        Lines for the load report, and the pixels that the weights were trained on, where stated.

    Raises:
        ValueError: what contradicts, a line for each key.
    """
    heads = f"number of heads ({sizes['num_heads']})"
    stated, pixels = stated_beside(weights), pixels_beside(weights)
    unseen = () if pixels is not None else ("normalisation",)
    if stated is None:
        what = " and ".join([heads, *unseen])
        return (f"no {CONFIG} beside the weights: {what} could not be checked",), pixels
    notes = (
        []
        if unseen == ()
        else [f"no {PREPROCESSING[-1]} with a mean: normalisation could not be checked"]
    )
    if stated.kind is None:
        named = printable(repr(stated.content.get("model_type")))
        notes.insert(0, f"{CONFIG}: model_type {named} is not known: {heads} could not be checked")
        return tuple(notes), pixels
    if problems := list(_contradictions(stated, kind, name, sizes, options, known)):
        raise ValueError("\n".join(problems))
    values = ((key, stated.get(key)) for key in SHOWN)
    said = ", ".join(f"{key} {value}" for key, value in values if value is not None)
    notes.insert(0, f"{CONFIG} agrees: {printable(said)}")
    if stated.get("num_attention_heads") != sizes["num_heads"]:
        notes[0] += f"; but {sizes['num_heads']} heads, as model.num_heads asks"
    frames, side = stated.get("num_frames"), stated.get("image_size")
    if kind == "vjepa2":
        frames, side = stated.get("frames_per_clip"), stated.get("crop_size")
    if (frames, side) != (options.num_frames, options.crop_size):
        notes.append(
            f"{CONFIG}: made for {frames} frames of {side} pixels, used with {options.num_frames} "
            f"of {options.crop_size} (data.num_frames, data.crop_size)"
        )
    return tuple(notes), pixels


def _contradictions(
    stated: Stated,
    kind: str,
    name: str,
    sizes: Mapping[str, Any],
    options: BackboneOptions,
    known: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    if stated.kind != kind:
        yield (
            f"{stated.path}: model_type: {stated.kind} in the file, {kind} with model.backbone "
            f"{name}; choose model.backbone {FAMILIES[stated.kind or kind]}, or another file"
        )
        return
    fits = [key for key, one in known.items() if (one["width"], one["depth"]) == stated.size]
    other = f"choose model.backbone {' or '.join(fits)}" if fits else "no backbone has this size"
    width, ratio = sizes["width"], sizes.get("mlp_ratio", 4.0)
    mlp = ("mlp_ratio", ratio) if kind == "vjepa2" else ("intermediate_size", round(width * ratio))
    patch = sizes.get("patch_size", 16)
    of_frames = kind in ("timesformer", "videoprism_vision_model")
    over_time = sizes.get("temporal_depth", 0)
    unlike = "the features would be others; use a file that was trained so"
    for key, ours, mend in (
        ("hidden_size", width, other),
        ("num_hidden_layers", sizes["depth"], other),
        ("num_spatial_layers", sizes["depth"] - over_time, other),
        ("num_temporal_layers", over_time, other),
        (*mlp, other),
        ("patch_size", patch, f"give --model.patch_size {stated.get('patch_size')}"),
        (
            *("tubelet_size", 1 if of_frames else options.tubelet_size),
            unlike if of_frames else f"give --model.tubelet_size {stated.get('tubelet_size')}",
        ),
        ("attn_logit_softcapping", SOFT_CAP, unlike),
        ("num_channels", 3, "the videos of this package have three channels"),
        ("in_chans", 3, "the videos of this package have three channels"),
    ):
        theirs = stated.get(key)
        if theirs is not None and not _equal(theirs, ours):
            yield _line(stated, key, theirs, f"{ours} with model.backbone {name}", mend)
    heads = stated.get("num_attention_heads")
    same_size = stated.size == (width, sizes["depth"])
    if heads != sizes["num_heads"] and options.num_heads is None and same_size:
        give = f"if the file was trained with {heads}, give --model.num_heads {heads}"
        if kind not in ("videomae", "vjepa2"):  # which have no such option
            give = unlike
        if (width, heads, sizes["num_heads"]) == (384, 16, 6):
            give = (
                "VideoMAE's own small models were trained with 6, and transformers' converter "
                "wrote 16 beside them: for these (MCG-NJU/videomae-small-...) give "
                "--model.num_heads 6, for a file that transformers trained --model.num_heads 16"
            )
        here = f"{sizes['num_heads']} with model.backbone {name}"
        yield _line(stated, "num_attention_heads", heads, here, f"no tensor tells it; {give}")
    known_gelu, gelu = (
        (TANH_GELU, "gelu with tanh here")
        if kind == "vivit"
        else (EXACT_GELU, "the exact gelu here")
    )
    if stated.get("hidden_act") not in known_gelu:
        yield _line(stated, "hidden_act", stated.get("hidden_act"), gelu, unlike)
    if stated.get("attention_type") not in (None, "divided_space_time"):
        divided = "divided_space_time here"
        yield _line(stated, "attention_type", stated.get("attention_type"), divided, unlike)
    for key in ("qkv_bias", "qv_bias"):
        if stated.get(key) is False:
            yield _line(stated, key, False, "true here", unlike)
    eps = stated.get("layer_norm_eps")
    if not isinstance(eps, int | float) or not 0 <= eps <= LARGEST_EPS:
        yield _line(stated, "layer_norm_eps", eps, "1e-06 here", unlike)


def _line(stated: Stated, key: str, theirs: Any, ours: str, mend: str) -> str:
    return f"{stated.path}: {key}: {printable(str(theirs))} in the file, {ours}; {mend}"


def _equal(theirs: Any, ours: float) -> bool:
    return isinstance(theirs, int | float) and abs(theirs - ours) < 1e-6


def pixels_beside(weights: Path) -> Pixels | None:
    """Read how the pixels were made that a model was trained on; None: no file states it.

    Raises:
        ValueError: a file that cannot be read, or without numbers where some are expected.
    """
    folder = _folder(weights)
    path = next((folder / name for name in PREPROCESSING if (folder / name).is_file()), None)
    if path is None:
        return None
    content = _read(path)
    try:
        scale = 1.0
        if content.get("do_rescale", True):
            scale = 255 * float(content.get("rescale_factor", 1 / 255))
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if content.get("do_normalize", True):
            if "image_mean" not in content or "image_std" not in content:
                return None
            mean, std = _three(content["image_mean"]), _three(content["image_std"])
        if not content.get("do_rescale", True):
            scale = 255.0
        crop, side = _side(content.get("crop_size")), _side(content.get("size"))
        if not content.get("do_center_crop", True):
            crop = None
        return Pixels(
            path=path,
            mean=_three([value / scale for value in mean]),
            std=_three([value / scale for value in std]),
            crop=crop,
            short_side=side,
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"{path}: image_mean, image_std, rescale_factor, size or crop_size cannot be used "
            f"({printable(str(error))}); fetch the file again, or move it away"
        ) from error


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values if isinstance(values, list | tuple) else [values] * 3
    return float(red), float(green), float(blue)


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return None if size is None else int(size)


def _folder(weights: Path) -> Path:
    return weights if weights.is_dir() else weights.parent


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("expected keys and values")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON ({printable(str(error))[:200]}); fetch it again, or "
            "move it away if it is not of these weights"
        ) from error
    return content
