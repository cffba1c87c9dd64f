"""Turn a timm image model into a video model: check options, load weights, build it."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vidadapt.models.backbone import (
    BackboneOptions,
    VideoModel,
    require_one_segment,
    require_unset,
)
from vidadapt.models.coverage import NOT_BACKBONE, LoadReport, State, require_match
from vidadapt.models.frame_by_frame import FrameByFrame
from vidadapt.models.hub import weights_file
from vidadapt.models.image import PREFIX, create_image_model
from vidadapt.models.image_weights import load_image_weights
from vidadapt.models.inflated import InflatedViT
from vidadapt.models.layouts import without_wrappers
from vidadapt.models.tensor_files import TensorFile, read_tensors
from vidadapt.models.vit import SIZES

FROM_IMAGE = ("inflate", "frames")
INFLATIONS = ("average", "centre")
DEFAULT_TUBELET = BackboneOptions.tubelet_size


def video_from_image(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return `timm/NAME` as a video model, and the loading report.

    The weights are those of the image model, loaded before it is inflated, or of a backbone that
    this package wrote, which already has tubelets.

    Raises:
        ValueError: options that do not apply, weights that do not fit.
    """
    _check(name, options)
    bare = name.removeprefix(PREFIX)
    image = create_image_model(name, crop_size=options.crop_size, drop_path=options.drop_path)
    path = weights_file(options.weights, bare)
    if path is None:
        model, report = _as_video(image, name, options), None
    else:
        file = read_tensors(path, options.weights_key)
        tensors = without_wrappers(file.tensors)
        if _wants_average_pool(tensors, image):
            image = create_image_model(
                name, crop_size=options.crop_size, drop_path=options.drop_path, average_pool=True
            )
        if _is_own(tensors):
            model = _as_video(image, name, options)
            report = _load_own(model, file, tensors)
        else:
            model, report = _load_image(image, name, options, file, tensors)
    return model, report


def _as_video(image: nn.Module, name: str, options: BackboneOptions) -> VideoModel:
    model = _without_head(image, name, options)
    options.put_head(model)
    return model


def _without_head(image: nn.Module, name: str, options: BackboneOptions) -> VideoModel:
    sizes: dict[str, Any] = {
        "num_frames": options.num_frames,
        "crop_size": options.crop_size,
        "num_classes": options.num_classes,
        "name": name,
    }
    if options.from_image == "frames":
        return FrameByFrame(image, **sizes)
    inflation = options.inflation or INFLATIONS[0]
    return InflatedViT(image, tubelet_size=options.tubelet_size, inflation=inflation, **sizes)


def _load_image(
    image: nn.Module, name: str, options: BackboneOptions, file: TensorFile, tensors: State
) -> tuple[VideoModel, LoadReport]:
    """Load the weights of an image model, then make it a video model."""
    frames = options.from_image == "frames"
    bare = name.removeprefix(PREFIX).split(".")[0]
    layout, used, dropped, notes = load_image_weights(
        image, bare, file.path, tensors, keep_pool=frames
    )
    model = _as_video(image, name, options)
    if not frames:
        how = options.inflation or INFLATIONS[0]
        notes.append(f"patch embedding inflated to {options.tubelet_size} frames: {how}")
    trained = [key for key in model.state_dict() if key.startswith(NOT_BACKBONE)]
    report = LoadReport(
        path=file.path,
        family=f"{layout}{file.where}",
        loaded=tuple(used),
        loaded_values=sum(tensor.numel() for tensor in used.values()),
        fresh=tuple(key for key in trained if frames or key not in used),
        dropped=dropped,
        notes=(*notes, _pooling(model), *file.notes),
    )
    return model, report


def _check(name: str, options: BackboneOptions) -> None:
    """Refuse options that an image model does not have, alone or frame by frame."""
    require_one_segment(name, options)
    require_unset(
        f"is for tubelet ViTs ({', '.join(SIZES)}); leave it out with {name}",
        patch_size=options.patch_size,
        position_grid=options.interpolate_from,
    )
    if options.keep_head:
        raise ValueError(f"keep_head: {name} gets a new head; its file has none for clips")
    for key, value, known in (
        ("from_image", options.from_image, FROM_IMAGE),
        ("inflation", options.inflation, INFLATIONS),
    ):
        if value is not None and value not in known:
            raise ValueError(f"model.{key}: expected {' or '.join(known)}, got {value!r}")
    of_tubelets = (
        ("inflation", options.inflation, None),
        ("tubelet_size", options.tubelet_size, DEFAULT_TUBELET),
    )
    for key, given, default in of_tubelets:
        if options.from_image == "frames" and given != default:
            raise ValueError(
                f"model.{key}: {given} is for model.from_image: inflate; leave it out when {name} "
                "runs frame by frame, which has no tubelets"
            )


def _is_own(tensors: State) -> bool:
    """Check that a file holds a backbone that this package wrote."""
    patch = tensors.get("patch_embed.proj.weight")
    return any(name.startswith("image.") for name in tensors) or (
        patch is not None and patch.ndim == 5
    )


def _wants_average_pool(tensors: State, image: Any) -> bool:
    """Check that a file's ViT has its last norm after the pool, while `image` has it before.

    Fine-tuned MAE models have; timm's of the same name pool the class token.
    """
    names = {name.removeprefix("image.") for name in tensors}
    after_pool = "fc_norm.weight" in names or _is_own(tensors)
    return (
        isinstance(image, VisionTransformer)
        and not isinstance(image.norm, nn.Identity)
        and "norm.weight" not in names
        and after_pool
    )


def _load_own(model: nn.Module, file: TensorFile, tensors: State) -> LoadReport:
    old_head = tuple(name for name in tensors if name.startswith("head."))
    used = {name: tensor for name, tensor in tensors.items() if name not in old_head}
    target = model.state_dict()
    required = [name for name in target if not name.startswith(NOT_BACKBONE)]
    advice = (
        "the file is a backbone written by this package; choose the model.backbone, "
        "model.from_image and model.tubelet_size that it was made with"
    )
    require_match(file.path, used, target, required, advice)
    model.load_state_dict({**target, **used}, strict=True)
    return LoadReport(
        path=file.path,
        family=f"vidadapt{file.where}",
        loaded=tuple(used),
        loaded_values=sum(tensor.numel() for tensor in used.values()),
        fresh=tuple(name for name in target if name not in used),
        dropped={"old head (a new one is trained)": old_head} if old_head else {},
        notes=file.notes,
    )


def _pooling(model: VideoModel) -> str:
    """Say for the report how the tokens are pooled."""
    t, h, w = model.grid
    if isinstance(model, FrameByFrame):
        return f"every frame pooled as timm does on images, then the mean over {t} frames"
    prefix = f"{model.num_prefix_tokens} class and register tokens stay in the sequence, unpooled; "
    return (prefix if model.num_prefix_tokens else "") + (
        f"pooled: the mean over {t} x {h} x {w} tubelets"
    )
