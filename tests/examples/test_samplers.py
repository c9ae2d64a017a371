import argparse

import pytest
import torch
from samplers import PipelineSampler, load_sampler

PROMPTS = ["a red cube", "a mug"]


def options(model="builtin/blocks", steps=2, guidance=1.0):
    return argparse.Namespace(
        diffusion=str(model), device="cpu", sampler_steps=steps, guidance=guidance
    )


@pytest.fixture(scope="module", params=["blocks", "pipeline"])
def sampler(request, pipeline_folder):
    model = {"blocks": "builtin/blocks", "pipeline": pipeline_folder}[request.param]
    return load_sampler(options(model, guidance=2.0))


def noise(sampler, count=2):
    return sampler.noise(count, torch.Generator().manual_seed(0))


def test_images_are_in_range_and_depend_on_noise_and_text(sampler):
    with torch.no_grad():
        images = sampler(PROMPTS, noise(sampler))
        other = sampler(PROMPTS[::-1], noise(sampler))
    assert images.ndim in (4, 5)
    assert images.shape[0] == 2
    assert images.shape[-3] == 3
    assert images.min() >= 0
    assert images.max() <= 1
    assert not torch.allclose(images, other)
    assert not torch.allclose(images[0], images[1])


def test_samples_of_a_batch_do_not_depend_on_each_other(sampler):
    with torch.no_grad():
        both = sampler(PROMPTS, noise(sampler))
        alone = sampler(PROMPTS[1:], noise(sampler)[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_gradient_at_the_noise_is_a_derivative(sampler):
    start = noise(sampler, 1)
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    weight = None

    def value(x):
        nonlocal weight
        images = sampler(PROMPTS[:1], x)
        if weight is None:
            weight = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
        return (images * weight).sum()

    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    step = 3e-3
    with torch.no_grad():
        change = (value(start + step * direction) - value(start - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), change, rtol=0.03, atol=0.03)


def gradient_of_weights(sampler, last):
    weight = sampler.network.conv_in.weight.requires_grad_()
    try:
        images = sampler(PROMPTS, noise(sampler), last=last)
        (gradient,) = torch.autograd.grad(images.sum(), weight)
    finally:
        weight.requires_grad_(False)
    return images.detach(), gradient


def test_only_the_last_steps_are_part_of_the_graph(sampler):
    images, everything = gradient_of_weights(sampler, None)
    same, all_steps = gradient_of_weights(sampler, 2)
    cut, last_step = gradient_of_weights(sampler, 1)
    torch.testing.assert_close(same, images)
    torch.testing.assert_close(cut, images)
    torch.testing.assert_close(all_steps, everything)
    assert not torch.allclose(last_step, everything, rtol=0.01)


def test_the_network_is_left_as_it_was(sampler):
    sampler(PROMPTS, noise(sampler))
    assert "forward" not in vars(sampler.network)
    assert not any(p.requires_grad for p in sampler.network.parameters())


def test_a_pipeline_makes_the_pictures_it_makes_by_itself(pipeline):
    sampler = PipelineSampler(pipeline, steps=2, guidance=2.0)
    expected = pipeline(
        PROMPTS,
        latents=noise(sampler),
        num_inference_steps=2,
        guidance_scale=2.0,
        output_type="pt",
    ).images
    torch.testing.assert_close(sampler(PROMPTS, noise(sampler)), expected)


def test_what_is_no_pipeline_is_refused(tmp_path, pipeline):
    with pytest.raises(OSError, match="expected the hub id or the folder of a diffusers pipeline"):
        load_sampler(options(tmp_path))
    with pytest.raises(ValueError, match="has no denoiser of latents"):
        PipelineSampler(argparse.Namespace(components={}), steps=1, guidance=1.0)
