"""Computations that could differ on a GPU; run with ``-m gpu`` on a machine that has one."""

import copy

import pytest
import torch
from processor_families import FAMILIES

from vlmreward import YesNoReward, processors

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def gradient(proc, x, y):
    return torch.autograd.grad(proc(x)["pixel_values"], x, y)[0]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_processor_equals_the_cpus(family, pixel_mode):
    """Lanczos too, which HF replaces by bicubic there."""
    proc = processors.from_hf(family.hf(), pixel_mode=pixel_mode)
    here = noise(2, 3, 200, 333).requires_grad_()
    there = here.detach().cuda().requires_grad_()
    expected = proc(here)["pixel_values"]
    y = torch.randn_like(expected)
    torch.set_float32_matmul_precision("high")
    try:
        got = proc(there)["pixel_values"]
        grad = torch.autograd.grad(got, there, y.cuda())[0]
    finally:
        torch.set_float32_matmul_precision("highest")
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), expected, atol=2e-5, rtol=0)
    wanted = torch.autograd.grad(expected, here, y)[0]
    torch.testing.assert_close(grad.cpu(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_gradients_repeat_bitwise(family):
    x = noise(2, 3, 256, 256).cuda().requires_grad_()
    proc = processors.from_hf(family.hf())
    y = torch.randn_like(proc(x)["pixel_values"])
    first = gradient(proc, x, y)
    for _ in range(9):
        assert torch.equal(first, gradient(proc, x, y))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_does_not_wait_for_the_gpu(family, pixel_mode):
    x = noise(2, 3, 100, 90).cuda().requires_grad_()
    proc = processors.from_hf(family.hf(), pixel_mode=pixel_mode)
    y = torch.randn_like(proc(x)["pixel_values"])
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(proc(x, validate=False)["pixel_values"], x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_reward_equals_the_cpus_and_images_may_stay_elsewhere(pair):
    x = noise(2, 2, 3, 64, 90)
    prompt = ["a cat", "a longer dog"]
    expected = YesNoReward((copy.deepcopy(pair[0]), pair[1]))(x, prompt=prompt)
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), device="cuda")
    there = x.cuda().requires_grad_()
    r = reward(there, prompt=prompt)
    assert r.is_cuda
    torch.testing.assert_close(r.detach().cpu(), expected.detach(), atol=1e-3, rtol=0)
    here = x.clone().requires_grad_()
    r = reward(here, prompt=prompt)
    assert not r.is_cuda
    r.sum().backward()
    assert here.grad.abs().sum() > 0
