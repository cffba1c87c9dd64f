"""The place of a layer in a backbone, so that a method can put a wrapper there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Place:
    """A submodule of `parent`, by its name there."""

    parent: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        return self.parent.get_submodule(self.name)

    def put(self, module: nn.Module) -> None:
        """Replace the submodule, as a rule by a wrapper that holds it."""
        self.parent.set_submodule(self.name, module)


def places(root: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[Place]:
    """Places of modules of these types below `root`, in the order of `root.modules()`.

    The list is complete before anything is replaced, so the caller may put wrappers while it
    iterates.
    """
    return [
        Place(parent, name)
        for parent in root.modules()
        for name, child in parent.named_children()
        if isinstance(child, kinds)
    ]
