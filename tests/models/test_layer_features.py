"""What a layer of an image model gives of a clip, frame by frame."""

from __future__ import annotations

import pytest
import torch
from image_kinds import image_model

from vidadapt.features import LayerFeatures
from vidadapt.models import FrameByFrame


@pytest.mark.parametrize("kind", ["class token", "DINOv2, registers, LayerScale"])
def test_frame_by_frame_a_layer_is_that_of_every_frame_in_turn(kind):
    image = image_model(kind)
    size = 42 if "DINOv2" in kind else 32
    model = FrameByFrame(image, num_frames=3, crop_size=size, num_classes=2).eval()
    clip = torch.randn(2, 3, 3, size, size)
    outputs = []
    hook = image.blocks[0].register_forward_hook(
        lambda block, given, output: outputs.append(output)
    )
    with torch.no_grad():
        for frame in clip.transpose(1, 2).flatten(0, 1):
            image.forward_features(frame[None])
    hook.remove()
    wanted = torch.cat(outputs).unflatten(0, (2, 3))  # (clips, frames, tokens, width)
    tokens = LayerFeatures(model, 1, "tokens")(clip)
    torch.testing.assert_close(tokens, wanted.flatten(1, 2))
    patches = wanted[:, :, model.num_prefix_tokens :]
    torch.testing.assert_close(LayerFeatures(model, 1, "mean")(clip), patches.mean(dim=(1, 2)))
    last = LayerFeatures(model, None, "tokens")(clip)
    assert last.shape == (2, 3, model.width)
    torch.testing.assert_close(LayerFeatures(model, None, "mean")(clip), last.mean(dim=1))


def test_maps_of_a_swin_are_tokens_frame_by_frame():
    model = FrameByFrame(
        image_model("Swin, shifted windows"), num_frames=2, crop_size=32, num_classes=2
    ).eval()
    clip = torch.randn(1, 3, 2, 32, 32)
    for layer, (places, width) in {1: (8 * 8, 24), 3: (4 * 4, 48)}.items():
        tokens = LayerFeatures(model, layer, "tokens")(clip)
        assert tokens.shape == (1, 2 * places, width)
        alone = LayerFeatures(model, layer, "mean")(clip)
        torch.testing.assert_close(alone, tokens.mean(dim=1))
