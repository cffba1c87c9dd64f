"""The one form of transformer block that methods edit, and where a backbone keeps its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

NORM_EPS = 1e-6  # of the LayerNorms of ViTs

# Tokens that attend to each other in a block: all, those of one window, or none.
AttentionKind = Literal["global", "window", "none"]


class Block(nn.Module):
    """Pre-norm residual block made of its parts; tokens (..., D) in and out.

    Blocks of every backbone have this form (timm's names), so a method's wrapper re-uses the parts
    (`norm1`, `attn`, `ls1`, `drop_path1`, `norm2`, `mlp`, `ls2`, `drop_path2`) and repeats the
    two lines of `forward`. `attn` mixes tokens, by attention or otherwise; `ls1` and `ls2` are
    LayerScale or the identity.
    """

    def __init__(
        self,
        *,
        norm1: nn.Module,
        attn: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        ls1: nn.Module | None = None,
        ls2: nn.Module | None = None,
        drop_path1: nn.Module | None = None,
        drop_path2: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1, self.attn = norm1, attn
        self.ls1, self.drop_path1 = ls1 or nn.Identity(), drop_path1 or nn.Identity()
        self.norm2, self.mlp = norm2, mlp
        self.ls2, self.drop_path2 = ls2 or nn.Identity(), drop_path2 or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


@dataclass(frozen=True)
class Slot:
    """The place of one block in a backbone.

    Attributes:
        container: holds the blocks in the order in which they run.
        index: place in `container`.
        width: D of the block's tokens.
        stage: resolution stage from 0; only hierarchical backbones have more than one.
        befores: what runs on the tokens before each block, which methods leave where it is (the
            time attention of TimeSformer); None or empty: nothing.
    """

    container: nn.ModuleList | nn.Sequential
    index: int
    width: int
    stage: int = 0
    befores: nn.ModuleList | None = None

    @property
    def block(self) -> Block:
        return cast(Block, self.container[self.index])

    @property
    def before(self) -> nn.Module | None:
        return self.befores[self.index] if self.befores else None

    def put(self, module: nn.Module) -> None:
        """Replace the block, as a rule by a wrapper that holds it."""
        self.container[self.index] = module
