"""Exchanges between processes that break, and errors that are none."""

from __future__ import annotations

import hanging
import pytest
import torch
from conftest import ALONE, run_program

from vidadapt.distributed import LostProcess, World, exchange, is_broken_exchange
from vidadapt.models.precision import NonFinite

OF_GLOO = (
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4711",
    "[/b/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1000ms for recv",
    "Gloo connectFullMesh failed with [/b/gloo/gloo/transport/tcp/pair.h:1] no error",
)


@pytest.mark.parametrize("text", OF_GLOO)
def test_errors_of_gloo_are_lost_processes(text):
    assert is_broken_exchange(RuntimeError(text))
    world = World(0, 2, torch.device("cpu"))
    with (
        pytest.raises(LostProcess, match=r"^step 3: lost another process"),
        exchange(world, lambda: "step 3"),
    ):
        raise RuntimeError(text.replace("Timed out", "Late"))


def test_of_a_connection_that_ends_late_it_is_asked_who_is_missing(monkeypatch):
    """Another process has waited in vain as long as this one, and ended its connections."""
    missing = "vidadapt.distributed.world._who_is_missing"
    monkeypatch.setattr(missing, lambda world: "rank 1 is missing")
    world = World(0, 2, torch.device("cpu"))
    for minutes, said in ((0.0, "rank 1 is missing"), (1.0, "lost another process")):
        with (
            pytest.raises(LostProcess, match=f"^step 3: {said}"),
            exchange(world, lambda: "step 3", minutes),
        ):
            raise RuntimeError(OF_GLOO[0])


@pytest.mark.parametrize("world", [ALONE, World(0, 2, torch.device("cpu"))])
@pytest.mark.parametrize(
    "error",
    [
        NonFinite("the loss is nan at step 3, on building igloo/1.mp4"),
        RuntimeError("/home/gloor/site-packages/torch/nn.py: shapes do not match; timed out"),
    ],
)
def test_other_errors_stay_what_they_are(world, error):
    with pytest.raises(type(error)) as caught, exchange(world, lambda: "step 3"):
        raise error
    assert caught.value is error


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "what"), [(0, "numbers"), (1, "numbers"), (1, "objects")])
def test_a_process_that_hangs_is_named(tmp_path, rank, what):
    run_program(hanging.__file__, rank, what, tmp_path / "said.txt")
    said = (tmp_path / "said.txt").read_text()
    assert said.startswith(f"step 1: rank {rank} does not answer (Timed out"), said
