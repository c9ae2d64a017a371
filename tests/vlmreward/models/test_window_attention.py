import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from vlmreward.models._acceleration.window_attention import window_attention


@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 6, 4, 1, 6], [7]])
def test_equals_one_call_per_window(lengths):
    g = torch.Generator().manual_seed(0)
    shape = (1, 2, sum(lengths), 8)
    q, k, v = (
        torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(3)
    )
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    ours, weights = window_attention(nn.Identity(), q, k, v, scaling=0.3, cu_seq_lens_q=bounds)
    parts = [
        scaled_dot_product_attention(*(x.split(lengths, dim=2)[i] for x in (q, k, v)), scale=0.3)
        for i in range(len(lengths))
    ]
    theirs = torch.cat(parts, 2).transpose(1, 2)
    assert weights is None
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, generator=g, dtype=torch.float64)
    mine = torch.autograd.grad((ours * weight).sum(), (q, k, v))
    reference = torch.autograd.grad((theirs * weight).sum(), (q, k, v))
    torch.testing.assert_close(mine, reference)


def test_half_precision_is_close_with_and_without_a_gradient():
    g = torch.Generator().manual_seed(0)
    exact = [torch.randn(1, 2, 24, 8, generator=g, requires_grad=True) for _ in range(3)]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    bounds = torch.tensor([0, 8, 16, 24])
    reference, _ = window_attention(nn.Identity(), *exact, cu_seq_lens_q=bounds)
    ours, _ = window_attention(nn.Identity(), *half, cu_seq_lens_q=bounds)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), reference, atol=0.03, rtol=0)
    with torch.no_grad():
        fused, _ = window_attention(nn.Identity(), *half, cu_seq_lens_q=bounds)
    torch.testing.assert_close(ours, fused, atol=0.03, rtol=0)
    weight = torch.randn(ours.shape, generator=g)
    mine = torch.autograd.grad((ours.float() * weight).sum(), half)
    theirs = torch.autograd.grad((reference * weight).sum(), exact)
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a.float(), b, atol=0.05, rtol=0)


def test_refuses_a_mask_and_missing_boundaries():
    x = torch.zeros(1, 1, 4, 2)
    with pytest.raises(ValueError, match="segment boundaries"):
        window_attention(nn.Identity(), x, x, x)
    with pytest.raises(ValueError, match="attention_mask"):
        window_attention(
            nn.Identity(), x, x, x, torch.ones(4, 4), cu_seq_lens_q=torch.tensor([0, 4])
        )
