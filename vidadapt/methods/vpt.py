"""VPT: learned tokens, the prompts, in front of the tokens of a frozen backbone.

Paper: Jia et al., "Visual Prompt Tuning", ECCV 2022, arXiv 2203.12119, Eq. 4-8. Reference
implementations: KMnP/vpt; for video, without a class token, ShoufaChen/AdaptFormer.

Differs from them in: prompts are put before all tokens, a class token included (VPT puts them after
it; attention has no order, so only the place differs), and none is pooled; deep prompts are dropped
after their block and new ones put before the next (VPT overwrites them: the same); no projection of
the prompts; dropout is per clip or frame, as in VPT; AdaptFormer has none.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidadapt.methods.placing import require_counts, require_global_attention, require_rate
from vidadapt.models import VideoModel

Init = Literal["xavier", "uniform"]


class Prompts(nn.Module):
    """Tokens (rows, N, D) to (rows, n + N, D): the same n learned tokens in front of every row.

    Parameters: n * D.
    """

    def __init__(self, count: int, width: int, *, bound: float, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        prompts = self.tokens.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([functional.dropout(prompts, self.dropout, self.training), x], dim=1)


class PromptedBlock(nn.Module):
    """A frozen block with prompts put in front of its input, or dropped from its output, or both.

    deep:    out = Block([prompts, x])[n:]                  every block
    shallow: out = Block([prompts, x]) ... Block(x)[n:]     first block ... last block
    """

    def __init__(self, block: nn.Module, prompts: Prompts | None, drop: int) -> None:
        super().__init__()
        self.block = block
        self.prompts = prompts
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        if self.prompts is not None:
            x = self.prompts(x)
        return self.block(x)[:, self.drop :]


def inject(
    model: VideoModel,
    *,
    num_prompts: int = 1,
    form: Literal["deep", "shallow"] = "deep",
    init: Init = "xavier",
    dropout: float = 0.0,
) -> None:
    """Put prompts in front of the tokens of a frozen backbone.

    If a backbone takes a clip frame by frame, each frame gets the prompts; if it rotates queries
    and keys by position, those of prompts are not rotated. Trainable parameters: `num_prompts` * D,
    per block if deep.

    Args:
        model: a backbone with global attention; edited in place.
        num_prompts: n. AdaptFormer's comparison on video has 1, VPT's default is 5.
        form: `deep`, new prompts before every block, whose outputs are dropped after it; or
            `shallow`, prompts that enter before the first block and stay until after the last.
        init: uniform within plus or minus a bound: `xavier`, sqrt(6 / (D (n + 1))), as AdaptFormer
            draws them for video (it shrinks as n grows); or `uniform`, sqrt(6 / (p + D)) with p the
            values of one patch or tubelet, as VPT does.
        dropout: of the prompts' values.

    Raises:
        ValueError: an invalid option, by name, or a backbone without global attention.
    """
    require_global_attention(model, "vpt", "prompts would have no place among its tokens")
    require_counts(num_prompts=num_prompts)
    require_rate(dropout)
    slots = model.slots()
    bound = _bound(model, num_prompts, slots[0].width, init)
    for slot in slots:
        prompts = None
        if form == "deep" or slot is slots[0]:
            prompts = Prompts(num_prompts, slot.width, bound=bound, dropout=dropout)
        drop = num_prompts if form == "deep" or slot is slots[-1] else 0
        if prompts is not None or drop > 0:
            slot.put(PromptedBlock(slot.block, prompts, drop))


def _bound(model: nn.Module, count: int, width: int, init: Init) -> float:
    if init == "xavier":
        return math.sqrt(6 / (width * (count + 1)))
    patch = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
    if patch is None:
        raise ValueError(
            "method.init: 'uniform' takes its bound from the size of a patch, and this backbone "
            "has no convolution that embeds patches; choose 'xavier'"
        )
    return math.sqrt(6 / (patch.weight[0].numel() + width))
