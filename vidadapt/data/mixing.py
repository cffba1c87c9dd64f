"""Mixup and CutMix over a batch of clips, on the device; torchvision v2 on video tensors."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot
from torchvision import tv_tensors
from torchvision.transforms import v2

from vidadapt.data.seeding import seeded


def mix_batch(
    clips: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    label_smoothing: float,
    seed: int,
    step: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every clip with another one of the batch; CutMix pastes one box, the same in all frames.

    With both alphas positive, each step is a mixup or a CutMix with probability 1/2. One ratio and
    one box serve the whole batch, and partners are neighbours in a random order (so that the
    adjacent copies of repeated augmentation are rarely partners), all drawn from (seed, step)
    alone. A clip without a partner, in a batch that lost the others, stays as it is. Differs from
    timm's Mixup, which VideoMAE copies and VideoMAE V2 calls: there the partner is the mirrored
    place in the batch, and in a 5-D batch, as VideoMAE passes it, CutMix cuts time and height by
    the bounds of height and width. V2 folds time into the channels first.

    Args:
        clips: (B, 3, T, H, W) float, normalised.
        labels: (B,) int64, or (B, K) bool of several labels each; on the clips' device.
        num_classes: K.
        mixup_alpha: of the Beta distribution of the mixing ratio; 0 is off.
        cutmix_alpha: the same for CutMix; 0 is off.
        label_smoothing: share of the target that is spread over all K classes.

    Returns:
        Clips like the input, and targets (B, K) float32: shares that sum to 1, or of several labels
        the mixed presence of each class in [0, 1]. With both alphas 0, or with one clip, the clips
        are returned unchanged, with the targets of one clip each.
    """
    smoothed = labels.float() if labels.ndim == 2 else one_hot(labels, num_classes).float()
    smoothed = smoothed * (1 - label_smoothing) + label_smoothing / num_classes
    if len(clips) < 2 or (mixup_alpha <= 0 and cutmix_alpha <= 0):
        return clips, smoothed
    with seeded(seed, step):
        order = torch.randperm(len(clips))
        use_cutmix = cutmix_alpha > 0 and (mixup_alpha <= 0 or bool(torch.rand(()) < 0.5))
        mix = v2.CutMix(alpha=cutmix_alpha) if use_cutmix else v2.MixUp(alpha=mixup_alpha)
        order = order.to(clips.device, non_blocking=True)  # so that no step waits for the device
        # v2 wants (B, T, C, H, W) and pairs each clip with the one before it.
        video = tv_tensors.Video(clips[order].transpose(1, 2))
        mixed, targets = mix(video, smoothed[order])
    back = order.argsort()
    return mixed.as_subclass(torch.Tensor).transpose(1, 2)[back], targets[back]
