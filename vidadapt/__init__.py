"""vidadapt: adapt large pre-trained video transformers by training a few per cent of them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:  # which would take it for any name

    def __getattr__(name: str) -> Any:
        """Import a module where it is first used, so that `import vidadapt` is quick."""
        if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")
