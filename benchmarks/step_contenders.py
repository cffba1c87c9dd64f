"""Models whose training steps are compared: vidadapt's methods, and models of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from vidadapt import methods
from vidadapt.apps.study import benchmark
from vidadapt.models import HEADS, VideoModel, VideoViT, VJepaViT, autocast, cast_frozen
from vidadapt.models import SIZES as BUILT
from vidadapt.models.vjepa import VJEPA_SIZES

# Of about 4 billion parameters: the ViT-e of PaLI (https://arxiv.org/abs/2209.06794, table 10).
SIZES: dict[str, Mapping[str, Any]] = {
    **BUILT,
    **VJEPA_SIZES,
    "vit_e": {"width": 1792, "depth": 56, "num_heads": 16, "mlp_ratio": 60 / 7, "patch_size": 14},
}
OF_TRANSFORMERS = ("full", "lora", "adaptformer", "linear")
RECOMPUTED = ("mlp", "block")
ATTENTION = {"flash": SDPBackend.FLASH_ATTENTION, "plain": SDPBackend.MATH}


@dataclass(frozen=True)
class Size:
    """What the contenders have in common.

    Attributes:
        backbone: key of `SIZES`.
        num_frames: T of a clip.
        crop_size: S of a clip, pixels.
        num_classes: K.
        batch_size: clips of a step.
        device: where the steps run.
        compiler: backend of `torch.compile`; `eager` only traces, in a tenth of the time.
    """

    backbone: str
    num_frames: int
    crop_size: int
    num_classes: int
    batch_size: int
    device: torch.device
    compiler: str = "inductor"


@dataclass(frozen=True)
class Contender:
    """A training step to be measured.

    Attributes:
        library: `vidadapt` or `transformers`.
        method: key of `METHODS`; of transformers one of `OF_TRANSFORMERS`.
        precision: `fp32`, or weights in float32 with autocast to `bf16`.
        recompute: as `--train.recompute`.
        attention: key of `ATTENTION`, which forces a kernel of torch's; None: as the model chooses.
        compiled: with `torch.compile`.
    """

    library: str
    method: str
    precision: str
    recompute: methods.Recompute = "none"
    attention: str | None = None
    compiled: bool = False

    @property
    def name(self) -> str:
        """
        >>> Contender("transformers", "lora", "bf16").name
        'transformers-lora bf16'
        >>> Contender("vidadapt", "adaptformer", "fp32", recompute="mlp").name
        'adaptformer+mlp fp32'
        """
        library = "" if self.library == "vidadapt" else f"{self.library}-"
        options = [
            option
            for option in (self.recompute, self.attention, "compile" if self.compiled else None)
            if option not in (None, "none")
        ]
        return f"{library}{'+'.join([self.method, *map(str, options)])} {self.precision}"


def read_contender(spec: str, precision: str) -> Contender:
    """`[transformers-]METHOD[+OPTION...]`, an option being mlp, block, flash, plain or compile.

    >>> read_contender("adaptformer+plain+compile", "bf16").name
    'adaptformer+plain+compile bf16'

    Raises:
        ValueError: no such method or option, or not in this library.
    """
    left, *options = spec.split("+")
    library, dash, method = left.partition("-")
    if not dash:
        library, method = "vidadapt", left
    known = {"vidadapt": tuple(methods.METHODS), "transformers": OF_TRANSFORMERS}
    if library not in known or method not in known[library]:
        raise ValueError(
            f"{spec}: expected one of {', '.join(known['vidadapt'])}, or transformers- and one of "
            f"{', '.join(OF_TRANSFORMERS)}, with options behind a +"
        )
    allowed = (*ATTENTION, "compile", *(RECOMPUTED if library == "vidadapt" else ()))
    for option in options:
        if option not in allowed:
            raise ValueError(f"{spec}: expected options of {', '.join(allowed)}, got {option}")
    again = [option for option in options if option in RECOMPUTED]
    kernels = [option for option in options if option in ATTENTION]
    if len(again) > 1 or len(kernels) > 1 or (again and "compile" in options):
        raise ValueError(f"{spec}: {' and '.join(options)} exclude each other")
    return Contender(
        library,
        method,
        precision,
        recompute="mlp" if "mlp" in again else "block" if again else "none",
        attention=kernels[0] if kernels else None,
        compiled="compile" in options,
    )


@dataclass(frozen=True)
class Step:
    """A contender at work.

    Attributes:
        loss: of clips and labels as `batch` makes them: forward pass, autocast included.
        finish: backward pass of the loss and optimiser step.
        model: for counting what it holds.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[Tensor], None]
    model: nn.Module


def prepared(contender: Contender, size: Size) -> Step:
    """The contender on its device.

    As tools/train.py trains: frozen weights are cast once, and the optimiser is SGD with momentum.
    transformers gets the same optimiser, loss and autocast.
    """
    device = size.device
    torch.manual_seed(0)
    with torch.device(device):
        model = build(contender, size)
    if contender.library == "vidadapt":
        cast_frozen(model, device, contender.precision)  # type: ignore[arg-type]
        methods.recompute_blocks(model, contender.recompute)  # type: ignore[arg-type]
    if contender.compiled:
        model.compile(backend=size.compiler)
    if contender.attention == "plain":  # in float32 otherwise, which nobody would write
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9)

    def loss(clip: Tensor, labels: Tensor) -> Tensor:
        with autocast(device, contender.precision), _kernel(contender.attention):
            logits = model(clip)
        return cross_entropy(logits.float(), labels)

    def finish(value: Tensor) -> None:
        with _kernel(contender.attention):  # what is recomputed or compiled asks here again
            value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Step(loss, finish, model)


def build(contender: Contender, size: Size) -> nn.Module:
    """A model of random weights, clip (B, 3, T, S, S) to logits (B, K), in train mode."""
    if contender.library == "transformers":
        sizes = {"mlp_ratio": 4.0, "patch_size": 16, **SIZES[size.backbone]}
        theirs = VJepa2 if size.backbone in VJEPA_SIZES else VideoMae
        return theirs(sizes, size, contender.method).train()
    model = plain_model(size)
    model.head = HEADS["batchnorm_linear"](model.width, size.num_classes)
    methods.apply(model, {"name": contender.method})
    methods.train_mode(model)
    return model


def plain_model(size: Size) -> VideoModel:
    """vidadapt's backbone without a method."""
    family = VJepaViT if size.backbone in VJEPA_SIZES else VideoViT
    return family(
        num_frames=size.num_frames,
        crop_size=size.crop_size,
        num_classes=size.num_classes,
        **SIZES[size.backbone],
    )


class VideoMae(nn.Module):
    """transformers' VideoMAE for classification; with peft's LoRA, rank 8, on queries and values.

    With LoRA the classifier and the norm before it are trained, too, as vidadapt's methods do.
    """

    def __init__(self, sizes: dict[str, Any], size: Size, method: str) -> None:
        super().__init__()
        if method not in ("full", "lora"):
            raise ValueError(f"transformers-{method}: is measured on V-JEPA 2 alone")
        # Here, so that vidadapt's rows need neither of the two.
        import transformers

        config = transformers.VideoMAEConfig(
            image_size=size.crop_size,
            patch_size=sizes["patch_size"],
            num_frames=size.num_frames,
            tubelet_size=2,
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["num_heads"],
            intermediate_size=round(sizes["width"] * sizes["mlp_ratio"]),
        )
        config.num_labels = size.num_classes
        self.model: nn.Module = transformers.VideoMAEForVideoClassification(config)
        if method == "lora":
            import peft

            what = peft.LoraConfig(
                r=8, target_modules=["query", "value"], modules_to_save=["classifier", "fc_norm"]
            )
            self.model = peft.get_peft_model(self.model, what)

    def forward(self, clip: Tensor) -> Tensor:
        return self.model(pixel_values=clip.transpose(1, 2)).logits


class VJepa2(nn.Module):
    """transformers' V-JEPA 2 encoder with vidadapt's read-out, and what one would write around it.

    `adaptformer`: each layer is followed by the same adapter as vidadapt's, beside its MLP;
    `lora`: peft's, rank 8, on queries and values; `linear`: the read-out alone is trained, and the
    encoder runs without gradients, as transformers' documentation shows it.
    """

    def __init__(self, sizes: dict[str, Any], size: Size, method: str) -> None:
        super().__init__()
        import transformers

        config = transformers.VJEPA2Config(
            patch_size=sizes["patch_size"],
            crop_size=size.crop_size,
            frames_per_clip=size.num_frames,
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["num_heads"],
            mlp_ratio=sizes["mlp_ratio"],
            pred_num_hidden_layers=1,
            pred_hidden_size=24,
            pred_num_attention_heads=2,
        )
        self.encoder: Any = transformers.VJEPA2Model(config).encoder
        self.frozen = method == "linear"
        self.encoder.requires_grad_(method == "full")
        if method == "adaptformer":
            made = methods.default_options("adaptformer")
            layers: list[Any] = list(self.encoder.layer)
            for layer in layers:
                adapter = AdaptedMlp(layer.mlp, sizes["width"], made)
                layer.norm2.register_forward_pre_hook(adapter.keep)
                layer.mlp = adapter
        if method == "lora":
            import peft

            what = peft.LoraConfig(r=8, target_modules=["query", "value"])
            self.encoder = peft.get_peft_model(self.encoder, what)
        self.fc_norm = nn.LayerNorm(sizes["width"], eps=1e-6)
        self.head = HEADS["batchnorm_linear"](sizes["width"], size.num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = self.encoder(pixel_values_videos=clip.transpose(1, 2)).last_hidden_state
        return self.head(self.fc_norm(tokens.mean(dim=1)))


class AdaptedMlp(nn.Module):
    """transformers' MLP with AdaptFormer's adapter beside it, which reads the stream."""

    def __init__(self, mlp: nn.Module, width: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.mlp = mlp
        self.down = nn.Linear(width, options["bottleneck"])
        self.up = nn.Linear(options["bottleneck"], width)
        self.scale = options["scale"]
        nn.init.zeros_(self.up.weight)
        self.stream: Tensor | None = None

    def keep(self, norm: nn.Module, given: tuple[Tensor]) -> None:
        self.stream = given[0]

    def forward(self, normed: Tensor) -> Tensor:
        assert self.stream is not None
        beside = self.up(torch.relu(self.down(self.stream))) * self.scale
        self.stream = None
        return self.mlp(normed) + beside


def batch(size: Size) -> tuple[Tensor, Tensor]:
    """Clips (B, 3, T, S, S) float32 and labels (B,) int64."""
    side = size.crop_size
    shape = (size.batch_size, 3, size.num_frames, side, side)
    labels = torch.arange(size.batch_size, device=size.device) % size.num_classes
    return torch.randn(shape, device=size.device), labels


def training_flops(contender: Contender, size: Size) -> int:
    """Of one clip, forward and backward, nothing recomputed; counted without computing.

    A multiply-add is 2; matrix products and convolutions alone, see `benchmark.flops`.
    """
    plain = Contender(contender.library, contender.method, "fp32")
    return _training_flops(plain, replace(size, batch_size=2, device=torch.device("cpu")))


@cache
def _training_flops(contender: Contender, size: Size) -> int:
    with torch.device("meta"):
        model = build(contender, size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        return round(sum(benchmark.flops(model, *batch(size))) / size.batch_size)


def _kernel(attention: str | None) -> Any:
    return nullcontext() if attention is None else sdpa_kernel(ATTENTION[attention])
