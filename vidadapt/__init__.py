"""vidadapt: adapt large pre-trained video transformers by training a few per cent of them.

    import vidadapt

    model = vidadapt.finetune("my_videos", run_dir="runs/mine", weights="videomae_vit_b.pth")
    model = vidadapt.load("runs/mine")
    model.predict("clip.mp4")

Everything is imported where it is first used, so that `import vidadapt` is quick. The rooms of the
package are there by their names, too: `vidadapt.runs`, `vidadapt.data`, ...
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidadapt.api import finetune
    from vidadapt.data import DATASETS, NORMALIZATIONS, SAMPLINGS
    from vidadapt.evaluation import METRICS
    from vidadapt.methods import METHODS
    from vidadapt.models import BACKBONES, HEADS
    from vidadapt.serving import AdapterBank, Guess, Model, Recognition, load

    __version__: str

__all__ = [
    "BACKBONES",
    "DATASETS",
    "HEADS",
    "METHODS",
    "METRICS",
    "NORMALIZATIONS",
    "SAMPLINGS",
    "AdapterBank",
    "Guess",
    "Model",
    "Recognition",
    "__version__",
    "finetune",
    "load",
]

_ROOMS = {  # of each name
    **dict.fromkeys(("AdapterBank", "Guess", "Model", "Recognition", "load"), "serving"),
    **dict.fromkeys(("BACKBONES", "HEADS"), "models"),
    **dict.fromkeys(("DATASETS", "NORMALIZATIONS", "SAMPLINGS"), "data"),
    "METHODS": "methods",
    "METRICS": "evaluation",
    "finetune": "api",
}

if not TYPE_CHECKING:  # which would take it for any name

    def __getattr__(name: str) -> Any:
        """Import what is asked for: a name of the API, or a room."""
        if name in _ROOMS:
            return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
        if name == "__version__":
            return version(__name__)
        if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")

    def __dir__() -> list[str]:
        return sorted(__all__)
