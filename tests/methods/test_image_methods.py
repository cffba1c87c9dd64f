"""Methods on an image ViT: logits and gradients of the whole model, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vidadapt import methods, models

SIDE, PATCH, HEADS, CLASSES = 32, 16, 3, 5
METHODS = {
    "adaptformer": {"name": "adaptformer", "bottleneck": 8, "scale": 0.1},
    "vpt": {"name": "vpt", "num_prompts": 3},
    "linear": {"name": "linear"},
}


def slow_logits(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Logits of MAE's ViT for images (B, 3, S, S), one by one, from its tensors alone."""
    found = []
    for image in images:
        weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
        corners = [(y, x) for y in range(0, SIDE, PATCH) for x in range(0, SIDE, PATCH)]
        patches = [image[:, y : y + PATCH, x : x + PATCH] for y, x in corners]
        tokens = torch.stack([(weight * patch).sum((1, 2, 3)) + bias for patch in patches])
        tokens = torch.cat([state["cls_token"][0], tokens]) + state["pos_embed"][0]
        for number in range(12):
            tokens = slow_block(state, f"blocks.{number}.", tokens)
        feature = slow_norm(tokens, state, "norm.")[0]  # of the class token
        mean, variance = state["head.0.running_mean"], state["head.0.running_var"]
        feature = (feature - mean) / (variance + 1e-6).sqrt()
        found.append(state["head.1.weight"] @ feature + state["head.1.bias"])
    return torch.stack(found)


def slow_block(state: dict[str, Tensor], of: str, tokens: Tensor) -> Tensor:
    inner = of + "block." if of + "block.norm1.weight" in state else of
    if of + "prompts.tokens" in state:
        prompts = state[of + "prompts.tokens"]
        return slow_block_alone(state, inner, torch.cat([prompts, tokens]))[0][len(prompts) :]
    out, stream = slow_block_alone(state, inner, tokens)
    if of + "adapter.down.weight" in state:
        down, up = (
            (state[of + f"adapter.{name}.weight"], state[of + f"adapter.{name}.bias"])
            for name in ("down", "up")
        )
        hidden = (stream @ down[0].T + down[1]).clamp(min=0)
        out = out + METHODS["adaptformer"]["scale"] * (hidden @ up[0].T + up[1])
    return out


def slow_block_alone(state: dict[str, Tensor], of: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The block's output, and the stream between attention and MLP."""
    width = tokens.shape[1]
    size = width // HEADS
    normed = slow_norm(tokens, state, of + "norm1.")
    qkv = normed @ state[of + "attn.qkv.weight"].T + state[of + "attn.qkv.bias"]
    joined = []
    for head in range(HEADS):
        query, key, value = (
            qkv[:, part * width + head * size : part * width + (head + 1) * size]
            for part in range(3)
        )
        shares = (query @ key.T / math.sqrt(size)).exp()
        joined.append(shares @ value / shares.sum(1, keepdim=True))
    mixed = torch.cat(joined, 1) @ state[of + "attn.proj.weight"].T + state[of + "attn.proj.bias"]
    stream = tokens + mixed
    normed = slow_norm(stream, state, of + "norm2.")
    hidden = normed @ state[of + "mlp.fc1.weight"].T + state[of + "mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return stream + hidden @ state[of + "mlp.fc2.weight"].T + state[of + "mlp.fc2.bias"], stream


def slow_norm(tokens: Tensor, state: dict[str, Tensor], of: str) -> Tensor:
    mean = tokens.mean(1, keepdim=True)
    variance = ((tokens - mean) ** 2).mean(1, keepdim=True)
    return (tokens - mean) / (variance + 1e-6).sqrt() * state[of + "weight"] + state[of + "bias"]


@pytest.mark.parametrize("method", METHODS)
def test_logits_and_gradients_of_an_image_are_the_equations(method):
    torch.manual_seed(0)
    model, _ = models.build(
        "timm/vit_tiny_patch16_224", from_image="frames", num_frames=1, crop_size=SIDE,
        num_classes=CLASSES, head="batchnorm_linear",
    )  # fmt: skip
    methods.apply(model, METHODS[method])
    model.double().eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), model.head[0].running_mean, model.head[0].running_var]:
            tensor.add_(torch.rand_like(tensor) * 0.1)
    images = torch.randn(3, 3, SIDE, SIDE, dtype=torch.float64)
    weights = torch.randn(3, CLASSES, dtype=torch.float64)
    logits = model(images[:, :, None])
    (logits * weights).sum().backward()
    state = {
        name.removeprefix("image."): tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name in trained:
        state[name.removeprefix("image.")].requires_grad_()
    expected = slow_logits(state, images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    (expected * weights).sum().backward()
    for name, parameter in trained.items():
        own = state[name.removeprefix("image.")].grad
        assert own.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, own, rtol=1e-9, atol=1e-10)
