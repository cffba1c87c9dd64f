"""Turn a timm image model into a video model: check options, load weights, build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vidadapt.models.coverage import NOT_BACKBONE, LoadReport, State, require_match
from vidadapt.models.frames import FrameByFrame
from vidadapt.models.image import PREFIX, create_image_model
from vidadapt.models.image_weights import load_image_weights
from vidadapt.models.inflated import InflatedViT
from vidadapt.models.tensor_files import TensorFile, read_tensors
from vidadapt.models.weights import without_wrappers

FROM_IMAGE = ("inflate", "frames")
INFLATIONS = ("average", "centre")
DEFAULT_TUBELET = 2


def video_from_image(
    backbone: str,
    *,
    num_frames: int,
    crop_size: int,
    num_classes: int,
    tubelet_size: int,
    drop_path: float,
    from_image: str | None,
    inflation: str | None,
    weights: Path | None,
    weights_key: str | None = None,
) -> tuple[InflatedViT | FrameByFrame, LoadReport | None]:
    """Return `timm/NAME` as a video model, and the loading report, see `models.build`.

    The weights are those of the image model, loaded before it is inflated, or of a backbone that
    this package wrote, which already has tubelets.

    Raises:
        ValueError: options that do not apply, weights that do not fit.
    """
    how, inflation = _checked(backbone, from_image, inflation, tubelet_size)
    sizes: dict[str, Any] = {
        "num_frames": num_frames,
        "crop_size": crop_size,
        "num_classes": num_classes,
        "name": backbone,
    }

    def as_video(image: nn.Module) -> InflatedViT | FrameByFrame:
        if how == "frames":
            return FrameByFrame(image, **sizes)
        return InflatedViT(image, tubelet_size=tubelet_size, inflation=inflation, **sizes)

    image = create_image_model(backbone, crop_size=crop_size, drop_path=drop_path)
    if weights is None:
        return as_video(image), None
    file = read_tensors(weights, weights_key)
    weights, tensors = file.path, without_wrappers(file.tensors)
    if _wants_average_pool(tensors, image):
        image = create_image_model(
            backbone, crop_size=crop_size, drop_path=drop_path, average_pool=True
        )
    if _is_own(tensors):
        model = as_video(image)
        return model, _load_own(model, file, tensors)
    name = backbone.removeprefix(PREFIX).split(".")[0]
    layout, used, dropped, notes = load_image_weights(
        image, name, weights, tensors, keep_pool=how == "frames"
    )
    model = as_video(image)
    if how == "inflate":
        notes.append(f"patch embedding inflated to {tubelet_size} frames: {inflation}")
    report = LoadReport(
        path=weights,
        family=f"{layout}{file.where}",
        loaded=tuple(used),
        loaded_values=sum(tensor.numel() for tensor in used.values()),
        fresh=_fresh(model, () if how == "frames" else tuple(used)),
        dropped=dropped,
        notes=(*notes, _pooling(model), *file.notes),
    )
    return model, report


def _checked(
    backbone: str, from_image: str | None, inflation: str | None, tubelet_size: int
) -> tuple[str, str]:
    how = from_image or "inflate"
    for key, value, known in (
        ("from_image", how, FROM_IMAGE),
        ("inflation", inflation or INFLATIONS[0], INFLATIONS),
    ):
        if value not in known:
            raise ValueError(f"model.{key}: expected {' or '.join(known)}, got {value!r}")
    if how == "frames" and inflation is not None:
        raise ValueError(
            f"model.inflation: {inflation} is for model.from_image: inflate; leave it out when "
            f"{backbone} runs frame by frame"
        )
    if how == "frames" and tubelet_size != DEFAULT_TUBELET:
        raise ValueError(
            f"model.tubelet_size: {tubelet_size} is for model.from_image: inflate; leave it out "
            f"when {backbone} runs frame by frame, which has no tubelets"
        )
    return how, inflation or INFLATIONS[0]


def _is_own(tensors: State) -> bool:
    """Whether a file holds a backbone that this package wrote."""
    patch = tensors.get("patch_embed.proj.weight")
    return any(name.startswith("image.") for name in tensors) or (
        patch is not None and patch.ndim == 5
    )


def _wants_average_pool(tensors: State, image: Any) -> bool:
    """Whether a file's ViT has its last norm after the pool, while `image` has it before.

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
        fresh=_fresh(model, tuple(used)),
        dropped={"old head (a new one is trained)": old_head} if old_head else {},
        notes=file.notes,
    )


def _fresh(model: nn.Module, loaded: tuple[str, ...]) -> tuple[str, ...]:
    names = model.state_dict()
    return tuple(k for k in names if k.startswith(NOT_BACKBONE) and k not in loaded)


def _pooling(model: InflatedViT | FrameByFrame) -> str:
    """How the tokens are pooled, for the report."""
    t, h, w = model.grid
    if isinstance(model, FrameByFrame):
        return f"every frame pooled as timm does on images, then the mean over {t} frames"
    prefix = f"{model.num_prefix_tokens} class and register tokens stay in the sequence, unpooled; "
    return (prefix if model.num_prefix_tokens else "") + (
        f"pooled: the mean over {t} x {h} x {w} tubelets"
    )
