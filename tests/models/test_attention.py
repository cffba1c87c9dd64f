"""Every attention kernel against the plain formula in float64, with its gradients."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from vidadapt.apps.study import benchmark
from vidadapt.models.attention import PlainBackward, attention, plain
from vidadapt.models.latent_pool import LatentPool
from vidadapt.models.timm_blocks import as_block

# Distance over norm. bf16 has 8 bits: one rounding is off by 0.2 % on average, and scores are
# rounded between the products of the backward pass.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.005}


def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v


def views_of_one_projection(tokens: int, dtype: torch.dtype) -> Tensor:
    """q, k, v as (3, 2, 3, tokens, 16), laid out as a model's joint projection leaves them."""
    torch.manual_seed(0)
    return torch.randn(2, tokens, 3, 3, 16).mul(1.5).to(dtype).permute(2, 0, 3, 1, 4)


def assert_near(found: Tensor, exact: Tensor, tolerance: float) -> None:
    assert (found.double() - exact).norm() <= tolerance * exact.norm()


# At 1,500 tokens the backward pass takes single heads, at 20 all of them together.
@pytest.mark.parametrize("tokens", [1, 20, 1500])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_results_and_gradients_are_those_of_the_formula(tokens, dtype):
    qkv = views_of_one_projection(tokens, dtype).requires_grad_()
    exact = qkv.detach().double().requires_grad_()
    found, want = attention(*qkv), formula(*exact)
    assert found.dtype == dtype
    assert_near(found, want, TOLERANCE[dtype])
    toward = torch.randn(2, tokens, 3, 16).transpose(1, 2).to(dtype)
    found.backward(toward)
    want.backward(toward.double())
    for own, reference in zip(qkv.grad, exact.grad, strict=True):
        # With one token there is no choice, and q and k have no gradient but rounding.
        if reference.abs().max() > 0:
            assert_near(own, reference, TOLERANCE[dtype])
        else:
            assert own.abs().max() < 0.1


def test_the_backward_pass_is_exact_but_for_rounding():
    """In float64, against finite differences; and the same where autocast is still on."""
    qkv = views_of_one_projection(5, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda tensor: PlainBackward.apply(*tensor), qkv)
    half = views_of_one_projection(5, torch.bfloat16).requires_grad_()
    attention(*half).sum().backward()
    expected, half.grad = half.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        attention(*half).sum().backward()
    assert torch.equal(half.grad, expected)


@pytest.mark.parametrize("tokens", [1, 20, 1100])
@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE])
def test_plain_products_are_the_formula_on_any_device(tokens, dtype):
    """Of 1,100 tokens a thread takes a part of a head's queries at a time."""
    qkv = views_of_one_projection(tokens, dtype)
    found = plain(*qkv)
    assert found.dtype == dtype
    assert_near(found, formula(*qkv.double()), TOLERANCE.get(dtype, 1e-12))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_results_are_the_same_with_and_without_gradients(dtype):
    qkv = views_of_one_projection(20, dtype)
    with_gradients = attention(*qkv.clone().requires_grad_())
    assert torch.equal(attention(*qkv), with_gradients)
    with torch.no_grad():
        assert torch.equal(attention(*qkv.clone().requires_grad_()), with_gradients)
    nothing = attention(*qkv[:, :0])
    assert nothing.shape == (0, 3, 20, 16)


def test_scores_are_not_kept_for_the_backward_pass():
    qkv = views_of_one_projection(300, torch.bfloat16).requires_grad_()
    _, kept = benchmark.backward_bytes(torch.nn.Identity(), lambda: attention(*qkv).sum())
    assert kept <= qkv.nbytes


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_blocks_of_image_models_use_it(name):
    image = timm.create_model(name, img_size=32, embed_dim=48, depth=1, num_heads=3)
    rotary = image.rope.get_embed(shape=[2, 2]) if "dinov3" in name else None
    block = as_block(image.blocks[0], rotary).bfloat16()
    out = block.attn(torch.randn(2, 4 + image.num_prefix_tokens, 48).bfloat16())
    reached, waiting = set(), [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in reached:
            reached.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    assert any(type(node).__name__ == f"{PlainBackward.__name__}Backward" for node in reached)


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE])
def test_the_pool_of_the_attentive_head_is_timms(dtype):
    """In its results and gradients; with parameters that make the attention far from uniform."""
    torch.manual_seed(0)
    own = LatentPool(128, num_heads=2, norm_layer=nn.LayerNorm).double()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    reference = AttentionPoolLatent(128, num_heads=2, norm_layer=nn.LayerNorm).double()
    reference.load_state_dict(own.state_dict())
    tokens = torch.randn(3, 50, 128, dtype=torch.float64)
    exact = reference(tokens)
    wanted = torch.autograd.grad(exact.square().sum(), [*reference.parameters()])
    own, given = own.to(dtype), tokens.to(dtype)
    found = own(given)
    assert found.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else TOLERANCE[dtype] * 2
    assert_near(found, exact, tolerance)
    gradients = torch.autograd.grad(found.square().sum(), [*own.parameters()])
    for gradient, other in zip(gradients, wanted, strict=True):
        assert_near(gradient, other, tolerance * 5)
