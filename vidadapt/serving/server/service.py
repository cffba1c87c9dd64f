"""What a server does with one video: decode it, run the adapters, name the labels."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidadapt.console import printable
from vidadapt.data import view_chunks
from vidadapt.files import absolute
from vidadapt.serving.predict import Guess, Predictor, most_probable
from vidadapt.serving.server.answers import Known, Label, Seen
from vidadapt.serving.server.batching import Batcher, Job
from vidadapt.serving.server.decoding import Decoded, Decoders, Video
from vidadapt.serving.server.figures import Figures
from vidadapt.video import ReadError, control_character, film_of, leads_outside

MOST_SHOWN = 300  # characters of a path that is not there


@dataclass(frozen=True)
class Limits:
    """What a server bears.

    Attributes:
        requests: that are answered at once; others are turned away.
        upload: bytes of a video that is sent.
        seconds: for sending a video, and again for decoding it.
        batch: clips of a forward pass, see `Batcher`.
        wait: seconds that a pass waits for clips that are being decoded.
    """

    requests: int = 64
    upload: int = 100_000_000
    seconds: float = 30.0
    batch: int = 16
    wait: float = 0.005


class Forbidden(ValueError):
    """A path that may not be opened."""


class Service:
    """Adapters in memory, with the processes and the thread that work for them.

    Args:
        predictor: the adapters.
        num_workers: decoding processes.
        root: folder of the videos that may be named by path; None: none may.
    """

    def __init__(
        self, predictor: Predictor, *, num_workers: int, root: Path | None, limits: Limits
    ) -> None:
        self.predictor, self.limits, self.root = predictor, limits, root
        self.in_hand = self._decoding = 0  # changed by the event loop's thread alone
        self._decoders = Decoders(num_workers, limits.seconds)
        self.figures = Figures(lambda: self.in_hand, lambda: self._decoders.replaced)
        self._threads = ThreadPoolExecutor(num_workers)
        self._batcher = Batcher(
            max_batch=limits.batch,
            max_wait=limits.wait,
            device=predictor.device,
            coming=lambda: self._decoding,
            passed=self.figures.clips.observe,
        )

    def warm_up(self) -> None:
        """Start all processes, and run each model once: the first request waits for neither."""
        self._decoders.start()
        for group in self.predictor.groups:
            side, sampling = group.plan.crop_size, group.plan.sampling
            clips = torch.zeros(1, 3, sampling.num_frames, side, side, dtype=torch.uint8)
            self._batcher.submit(Job(group, group.bank.names, clips)).result()

    def close(self) -> None:
        """End the processes and threads; what they have begun is finished."""
        self._threads.shutdown()
        self._batcher.close()
        self._decoders.close()

    def abandon(self) -> None:
        """End the processes and threads without what they have begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._decoders.close()

    def known(self) -> list[Known]:
        """Describe the adapters."""
        found = []
        for name in self.predictor.names:
            adapter = self.predictor.adapter(name)
            plan = adapter.plan
            found.append(
                Known(
                    name=name,
                    summary=adapter.summary,
                    labels=list(adapter.labels),
                    multi_label=plan.multi_label,
                    num_frames=plan.sampling.num_frames,
                    crop_size=plan.crop_size,
                    views=self.predictor.views[name],
                )
            )
        return found

    def named(self, names: Sequence[str]) -> list[str]:
        """Adapters that a request names, each once; all if it names none.

        Raises:
            KeyError: no such adapter; it names those that there are.
        """
        served = self.predictor.names
        for name in names:
            if name not in served:
                raise KeyError(f"no adapter {name!r}; there are {', '.join(served)}")
        return list(dict.fromkeys(names)) or served

    def below_root(self, path: str) -> str:
        """Absolute path of a video's file that a request names.

        Raises:
            Forbidden: there is no root, or the path leads out of it or is not one of a whole file.
            FileNotFoundError: no such file.
        """
        if self.root is None:
            raise Forbidden("this server takes no paths: it was started without --root")
        if (character := control_character(path)) or not path.strip():
            raise Forbidden(f"the path holds {character or 'nothing'}")
        if leads_outside(path, self.root) or film_of(path) != path:
            raise Forbidden(f"{printable(path)[:MOST_SHOWN]} is no whole file below the root")
        file = absolute(os.fspath(self.root / path))
        try:
            there = Path(file).is_file()
        except OSError:  # a name that is too long
            there = False
        if not there:
            raise FileNotFoundError(f"{printable(path)[:MOST_SHOWN]}: no such file below the root")
        return file

    async def recognise(
        self, file: str, names: Sequence[str], top: int
    ) -> tuple[dict[str, Seen], list[str]]:
        """Look at a file; returns what the adapters see in it, and what is odd about it.

        Raises:
            ReadError: it cannot be read; the file is not named.
            NonFinite: an adapter's scores are not finite.
        """
        groups = [
            (group, [name for name in names if name in group.bank.names])
            for group in self.predictor.groups
        ]
        groups = [(group, own) for group, own in groups if own]
        cuts = tuple((group.config.data.reader, group.plan) for group, _ in groups)
        decoded, views = await self._decoded(Video(file, cuts))
        jobs = [Job(group, own, cut) for (group, own), cut in zip(groups, views, strict=True)]
        logits = await asyncio.gather(
            *(asyncio.wrap_future(self._batcher.submit(job)) for job in jobs)
        )
        seen = {}
        for (group, own), item, found in zip(groups, decoded.items, logits, strict=True):
            for name in own:
                adapter = group.bank.adapter(name)
                # A tensor of one number would be taken for this number.
                logits_of = found[name][np.asarray(item["view_of"])]
                guesses = most_probable(adapter, logits_of, top)
                views_of = self.predictor.views[name]
                seen[name] = Seen(views=views_of, top=[_label(guess) for guess in guesses])
        return {name: seen[name] for name in names}, decoded.remarks

    async def _decoded(self, video: Video) -> tuple[Decoded, list[Tensor]]:
        """Decode a video in another process, and cut its views in another thread."""
        loop = asyncio.get_running_loop()
        self._decoding += 1
        try:
            decoded, views = await loop.run_in_executor(self._threads, self._cut, video)
        except ReadError as error:
            raise type(error)(_unnamed(str(error), video.file)) from None
        finally:
            self._decoding -= 1
        return replace(
            decoded, remarks=[_unnamed(one, video.file) for one in decoded.remarks]
        ), views

    def _cut(self, video: Video) -> tuple[Decoded, list[Tensor]]:
        decoded, here = self._decoders.decode(video), torch.device("cpu")
        views = [list(view_chunks(item, self.limits.batch, here)) for item in decoded.items]
        return decoded, [torch.cat(chunks) for chunks in views]


def _unnamed(said: str, file: str) -> str:
    """Leave the file's own path out: a client knows what it sent, and not where that lies here."""
    return printable(said.removeprefix(f"{file}: ").replace(file, "the video"))


def _label(guess: Guess) -> Label:
    return Label(**asdict(guess))
