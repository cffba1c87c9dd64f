"""The rotation of queries and keys against timm's, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch
from timm.layers import apply_rot_embed_cat

from vidadapt.models.rotation import rotated


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("table_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_timms_bit_by_bit(dtype, table_dtype, half):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 3, 12).to(dtype).transpose(1, 2)
    rotary = torch.randn(7, 24).to(table_dtype)
    before = rotary.clone()
    found = rotated(x, rotary, half)
    assert found.dtype == dtype
    assert torch.equal(found, apply_rot_embed_cat(x, rotary, half=half))
    assert torch.equal(rotary, before)


@pytest.mark.parametrize("half", [False, True])
def test_gradients(half):
    """Those of finite differences; in float32 timm's bit by bit; in bf16 the formula's, rounded."""
    torch.manual_seed(0)
    rotary = torch.randn(5, 16, dtype=torch.float64)
    exact = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotated(x, rotary, half), exact)
    toward, found = torch.randn(2, 3, 5, 8).bfloat16(), {}
    for dtype in (torch.float32, torch.bfloat16):
        x = exact.detach().to(dtype).requires_grad_()
        rotated(x, rotary.float(), half).backward(toward.to(dtype))
        found[dtype] = x.grad
    x = exact.detach().float().requires_grad_()
    apply_rot_embed_cat(x, rotary.float(), half=half).backward(toward.float())
    assert torch.equal(found[torch.float32], x.grad)
    assert torch.equal(found[torch.bfloat16], x.grad.bfloat16())
