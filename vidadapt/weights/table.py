"""All published weights by name, and which of them a configuration names."""

from __future__ import annotations

from vidadapt.weights.encoders import ENCODERS
from vidadapt.weights.image import IMAGE
from vidadapt.weights.published import Published
from vidadapt.weights.video import VIDEO
from vidadapt.weights.vjepa import VJEPA

PUBLISHED: dict[str, Published] = {**VIDEO, **VJEPA, **ENCODERS, **IMAGE}


def of_weights(weights: str | None, backbone: str) -> Published | None:
    """Find the published file that a configuration names; None: it is not in the table.

    Args:
        weights: `model.weights`; of a path only the name of the file counts.
        backbone: `model.backbone`.

    >>> of_weights("hub:MCG-NJU/videomae-base", "vit_base").licence
    'CC-BY-NC-4.0'
    >>> of_weights("hub", "timm/vit_base_patch14_dinov2.lvd142m").licence
    'Apache-2.0'
    >>> of_weights("/data/mae_pretrain_vit_base.pth", "timm/vit_base_patch16_224").maker
    'Meta AI (FAIR)'
    >>> of_weights("my_own.pth", "vit_base")
    """
    if weights is None:
        return None
    if weights == "hub":
        fits = (e for e in PUBLISHED.values() if e.weights == "hub" and e.backbone == backbone)
    elif weights.startswith("hub:"):
        first = (None, "model.safetensors")  # what a repository's name alone stands for
        fits = (
            e
            for e in PUBLISHED.values()
            if weights == e.weights or (e.file in first and weights == f"hub:{e.hub}")
        )
    else:
        name = weights.rpartition("/")[2]
        fits = (
            e for e in PUBLISHED.values() if name.count(".") and e.place.rpartition("/")[2] == name
        )
    return next(fits, None)
