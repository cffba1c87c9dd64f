"""BatchNorm over all processes, in one; tests/distributed/test_machine_count.py has several."""

from __future__ import annotations

import pytest
import torch

from vidadapt.models.batchnorm import over_all_processes, without_clips
from vidadapt.models.heads import HEADS
from vidadapt.models.plain import fold_batchnorm


def heads(seed: int = 0) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same head twice, the second one's BatchNorm over all processes, of which there is one."""
    pair = []
    for _ in range(2):
        torch.manual_seed(seed)
        pair.append(HEADS["batchnorm_linear"](5, 3))
    over_all_processes(pair[1], lambda tensor: tensor.clone())
    return pair[0], pair[1]


def test_alone_it_is_the_plain_one_but_for_rounding():
    plain, shared = heads()
    for step in range(20):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step)) * 3 + 10
        gradients = []
        for head in (plain, shared):
            inputs = x.clone().requires_grad_()
            head.zero_grad()
            head(inputs).square().sum().backward()
            gradients.append((inputs.grad, head[1].weight.grad))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert plain.state_dict().keys() == shared.state_dict().keys()
    assert int(shared[0].num_batches_tracked) == 20
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_one_clip_in_all_leaves_the_statistics_as_they_were():
    _, shared = heads()
    shared(torch.randn(6, 5))
    before = {name: value.clone() for name, value in shared[0].named_buffers()}
    inputs = torch.randn(1, 5).requires_grad_()
    logits = shared(inputs)
    logits.sum().backward()
    assert torch.equal(logits, shared[1].bias[None]) and not inputs.grad.any()
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(shared[0], name), before[name])


def test_checkpoints_go_both_ways_and_evaluation_is_the_same_to_the_bit():
    plain, shared = heads()
    shared(torch.randn(6, 5))
    plain.load_state_dict(shared.state_dict())
    x = torch.randn(4, 5)
    assert torch.equal(plain.eval()(x), shared.eval()(x))
    assert torch.equal(fold_batchnorm(plain)(x), fold_batchnorm(shared)(x))
    other, _ = heads(seed=1)
    shared.load_state_dict(other.state_dict())
    assert torch.equal(other.eval()(x), shared(x))


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_every_pass_exchanges_twice_forward_and_twice_backward(needs_gradient):
    """Also of a process without clips, and where nothing before the head trains."""
    directions: list[str] = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            directions.append("forward")
            return tensor.clone()

        @staticmethod
        def backward(ctx, gradient):
            directions.append("backward")
            return gradient

    head = HEADS["batchnorm_linear"](5, 3)
    over_all_processes(head, Counted.apply)
    head(torch.randn(4, 5, requires_grad=needs_gradient)).sum().backward()
    assert directions == ["forward", "forward", "backward", "backward"]
    directions.clear()
    without_clips(head)
    assert directions == ["forward", "forward", "backward", "backward"]


def test_a_half_precision_input_gives_one_of_its_type():
    _, shared = heads()
    assert shared[0](torch.randn(4, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_head_without_batchnorm_is_refused_and_one_that_is_not_shared_left_alone():
    head = HEADS["linear"](5, 3)
    with pytest.raises(ValueError, match=r"no BatchNorm; use model\.head batchnorm_linear"):
        over_all_processes(head, torch.clone)
    without_clips(head)
    assert head.weight.grad is None
