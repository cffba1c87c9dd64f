"""Methods that add nothing: train only the readout, the biases, or everything.

Linear probe as in AdaptFormer (arXiv 2205.13535): mean pool -> fc_norm (trainable, as released
and as the papers count it) -> BatchNorm without affine -> Linear.

BitFit: Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
Masked Language-models", ACL 2022, arXiv 2106.10199. Reference implementation: benzakenelad/BitFit.
Differs from it in: the backbone is one for video; `fc_norm` is trained whole, as with every method
here.
"""

from __future__ import annotations

from vidadapt.models import VideoModel

# A module's own bias, and those beside a joint projection to queries, keys, values.
BIASES = ("bias", "q_bias", "k_bias", "v_bias")


def inject_linear(model: VideoModel) -> None:
    """Add nothing: the head and fc_norm are made trainable for every method."""


def inject_full(model: VideoModel) -> None:
    """Train every parameter."""
    model.requires_grad_(True)


def inject_bitfit(model: VideoModel) -> None:
    """Train every bias of the backbone: of the patch embedding, of linear layers and of norms.

    Tables of relative positions are not biases in this sense and stay frozen. A tubelet ViT has D
    for the patch embedding and 10 D for each of L blocks with MLP ratio 4: norm1 D, q_bias and
    v_bias 2 D (keys have none), proj D, norm2 D, fc1 4 D, fc2 D; D (10 L + 1) together, 92,928 on
    ViT-B, without fc_norm and the head.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name in BIASES:
                parameter.requires_grad_(True)
