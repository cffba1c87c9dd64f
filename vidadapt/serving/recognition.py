"""Labels that one model sees in a video or a clip."""

from __future__ import annotations

from dataclasses import dataclass

from vidadapt.console import printable
from vidadapt.serving.predict import Guess
from vidadapt.video import ReadError


@dataclass(frozen=True)
class Recognition:
    """Labels that a model sees in a video or a clip.

    Attributes:
        path: of the video; empty: it was a clip.
        guesses: the most probable labels, best first; empty: the video cannot be read.
        error: why it cannot be read; empty: it can.
    """

    path: str
    guesses: tuple[Guess, ...]
    error: str = ""

    @property
    def label(self) -> str:
        """Name of the most probable class.

        Raises:
            ReadError: the video cannot be read.
        """
        return self._best().name

    @property
    def probability(self) -> float:
        """That of `label`, from 0 to 1.

        Raises:
            ReadError: the video cannot be read.
        """
        return self._best().probability

    def _best(self) -> Guess:
        if self.error:
            raise ReadError(f"{self.path}: {self.error}")
        return self.guesses[0]

    def __repr__(self) -> str:
        said = ", ".join(f"{one.name} {100 * one.probability:.1f} %" for one in self.guesses)
        of = f"{self.path}: " if self.path else ""
        return printable(f"<{of}{said or f'cannot be read: {self.error}'}>")
