"""Import commands without the libraries that take seconds, to say what their options are.

Texts, signatures and dataclasses are ours, so `--help` needs none of torch. As Sphinx does to
document code, stand-ins take the place of such libraries for as long as the help is made: 0.6 s in
place of 3 to 7 s.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HEAVY = {
    *("torch", "torchvision", "timm", "transformers", "matplotlib", "pandas", "av", "PIL"),
    *("decord", "torchcodec", "safetensors", "sklearn", "huggingface_hub", "jinja2", "einops"),
    *("wandb", "mlflow"),
}


@contextlib.contextmanager
def heavy_libraries_left_out() -> Iterator[None]:
    """Put stand-ins in the place of heavy libraries; where they do not do, undo it and go on.

    An error within, e.g. of a module that computes with torch where it is imported, is no error of
    the program: afterwards everything that was imported within is forgotten, and the caller does
    the same again with the libraries themselves. A `SystemExit` goes through: help was printed.
    """
    before = set(sys.modules)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    except Exception:
        pass
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in HEAVY | {"vidadapt"}:
                del sys.modules[name]


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins for `HEAVY` and all their modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in HEAVY:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Module(ModuleType):
    """A module that has every attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        return _Anything()


class _Anything:
    """In place of any class, function or value: a base of classes, called, or decorating."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (_Anything,)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorates = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if decorates else _Anything()

    def __getitem__(self, key: Any) -> Any:
        return _Anything()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __or__(self, other: Any) -> Any:
        return _Anything()

    __ror__ = __or__
