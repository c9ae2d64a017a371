"""What could be different on a GPU; run with ``-m gpu`` where there is one."""

import copy

import pytest
import torch
from transformers import Qwen2VLImageProcessor

from vlmreward import YesNoReward, processors

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
HF = Qwen2VLImageProcessor()


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pixels", processors.PIXELS)
def test_processor_equals_the_cpus(pixels):
    x = noise(2, 3, 200, 333)
    proc = processors.from_hf(HF, pixels=pixels)
    there = x.cuda().requires_grad_()
    here = x.clone().requires_grad_()
    torch.set_float32_matmul_precision("high")
    try:
        values = proc(there)["pixel_values"]
        values.square().sum().backward()
    finally:
        torch.set_float32_matmul_precision("highest")
    expected = proc(here)["pixel_values"]
    expected.square().sum().backward()
    torch.testing.assert_close(values.cpu(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(there.grad.cpu(), here.grad, atol=1e-4, rtol=1e-4)


def test_gradients_repeat_bitwise():
    x = noise(8, 3, 256, 256).cuda().requires_grad_()
    proc = processors.from_hf(HF)
    y = torch.randn_like(proc(x)["pixel_values"])
    first = torch.autograd.grad(proc(x)["pixel_values"], x, y)[0]
    for _ in range(9):
        assert torch.equal(first, torch.autograd.grad(proc(x)["pixel_values"], x, y)[0])


def test_reward_equals_the_cpus_and_images_may_stay_elsewhere(pair):
    x = noise(2, 2, 3, 64, 90)
    text = ["a cat", "a longer dog"]
    expected = YesNoReward((copy.deepcopy(pair[0]), pair[1]))(x, text=text)
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), device="cuda")
    there = x.cuda().requires_grad_()
    r = reward(there, text=text)
    assert r.is_cuda
    torch.testing.assert_close(r.detach().cpu(), expected.detach(), atol=1e-3, rtol=0)
    here = x.clone().requires_grad_()
    r = reward(here, text=text)
    assert not r.is_cuda
    r.sum().backward()
    assert here.grad.abs().sum() > 0
