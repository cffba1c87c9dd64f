"""What a layer of each kind of backbone gives, against hooks on a whole forward pass."""

from __future__ import annotations

import kinds
import pytest
import torch

from vidadapt.features import LayerFeatures
from vidadapt.models import VideoModel, build


def outputs_of(model: VideoModel, clip: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    hooks = [
        slot.block.register_forward_hook(lambda block, given, output: found.append(output))
        for slot in model.slots()
    ]
    with torch.no_grad():
        model(clip)
    for hook in hooks:
        hook.remove()
    return found


def in_two_segments() -> VideoModel:
    shape = {"num_frames": 8, "crop_size": 32, "num_classes": kinds.NUM_CLASSES}
    return build("vjepa2_tiny", segments=2, head="linear", **shape)[0]


@pytest.mark.parametrize("kind", [*kinds.KINDS, "two segments"])
def test_layers_are_what_blocks_give_and_the_last_is_what_the_head_reads(kind):
    model = in_two_segments() if kind == "two segments" else kinds.fresh(kind)
    model.eval()
    torch.manual_seed(0)
    clip = torch.randn(2, *model.clip_shape)
    outputs = outputs_of(model, clip)
    assert len(outputs) == model.depth
    for layer, output in enumerate(outputs, start=1):
        width = model.slots()[layer - 1].width
        tokens = LayerFeatures(model, layer, "tokens")(clip)
        assert torch.equal(tokens, output.reshape(2, -1, width))
        rows = output.reshape(2, len(output) // 2, -1, width)
        patches = rows[:, :, model.num_prefix_tokens :]
        mean = LayerFeatures(model, layer, "mean")(clip)
        torch.testing.assert_close(mean, patches.mean(dim=(1, 2)))
    with torch.no_grad():
        last = LayerFeatures(model, None, "tokens")(clip)
        assert torch.equal(last, model.forward_features(clip))
        mean = LayerFeatures(model, None, "mean")(clip)
        assert mean.shape == (2, model.width)
        head = LayerFeatures(model, None, "head")(clip)
        torch.testing.assert_close(head, model.fc_norm(mean))
        torch.testing.assert_close(model(clip), model.head(head))


def test_a_frame_alone_gives_its_part_of_a_frame_wise_layer():
    model = kinds.fresh("frame-wise ViT").eval()
    clip = kinds.clips(2, "frame-wise ViT")
    tokens = LayerFeatures(model, 2, "tokens")(clip)
    last = LayerFeatures(model, None, "tokens")(clip)
    assert last.shape == (2, 4, model.width)
    outputs = []
    model.image.blocks[1].register_forward_hook(lambda block, given, out: outputs.append(out))
    with torch.no_grad():
        pooled = [model.frame_features(frame[None]) for frame in clip.transpose(1, 2).flatten(0, 1)]
    torch.testing.assert_close(tokens, torch.cat(outputs).reshape(tokens.shape))
    torch.testing.assert_close(last, torch.cat(pooled).reshape(last.shape))
