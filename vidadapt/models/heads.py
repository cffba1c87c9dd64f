"""Heads: features to logits (B, K). All parameters of a head are trainable."""

from __future__ import annotations

from collections.abc import Callable

from timm.layers import trunc_normal_
from torch import Tensor, nn

from vidadapt.models.latent_pool import LatentPool
from vidadapt.models.vjepa_head import VJepaHead

# Children of every model that make its read-out, which is each task's own.
READ_OUT = ("fc_norm", "head")


def read_out(tokens: Tensor, fc_norm: nn.Module, head: nn.Module) -> Tensor:
    """Tokens (B, N, D) to logits (B, K): pool, fc_norm, head.

    The pool is the mean over the tokens. Attentive heads pool by themselves: fc_norm, then the
    head, on all tokens.
    """
    if pools(head):
        return head(fc_norm(tokens))
    return head(fc_norm(tokens.mean(dim=1)))


def linear(width: int, num_classes: int) -> nn.Module:
    """One linear layer, VideoMAE's initialisation: truncated normal 0.02, all times 0.001."""
    layer = nn.Linear(width, num_classes)
    trunc_normal_(layer.weight, std=0.02)
    layer.weight.data.mul_(0.001)
    nn.init.zeros_(layer.bias)
    return layer


def batchnorm_linear(width: int, num_classes: int) -> nn.Module:
    """Parameter-free BatchNorm, then linear, as AdaptFormer's release has for every method.

    Keys: `0.running_mean`, `0.running_var`, `0.num_batches_tracked`, `1.weight`, `1.bias`. In
    training the statistics are those of the local batch, which must hold at least two clips.
    """
    layer = nn.Linear(width, num_classes)
    trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), layer)


class AttentiveHead(nn.Module):
    """One learned query attends to all tokens (B, N, D), then an MLP with residual, then linear.

    The attentive probe of V-JEPA (Bardes et al., "Revisiting Feature Prediction for Learning
    Visual Representations from Video", 2024, arXiv 2404.08471). Differs from its release in: timm's
    `AttentionPoolLatent` (as `LatentPool`), which projects the attended values and does not add the
    query to them; 64 channels a head; the norm in front of the tokens is the model's `fc_norm`;
    VideoMAE's initialisation of the last layer. Parameters: 12 D^2 + 12 D, and the last layer's
    (D + 1) K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.pool = LatentPool(width, num_heads=max(width // 64, 1), norm_layer=nn.LayerNorm)
        self.classifier = linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.pool(tokens))


def pools(head: nn.Module) -> bool:
    """Check that a head takes all tokens (B, N, D), and ends in a layer named `classifier`."""
    return isinstance(head, AttentiveHead | VJepaHead)


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": linear,
    "batchnorm_linear": batchnorm_linear,
    "attentive": AttentiveHead,
    "vjepa_attentive": VJepaHead,
}
