"""Guidance by a reward in the pipelines of the installed diffusers."""

from types import SimpleNamespace

import pytest
import tiny_pipeline
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.callbacks import MultiPipelineCallbacks
from reference_rewards import noise, pattern
from torch.testing import assert_close

from vlmreward.integrations import RewardGuidance, decode_latents
from vlmreward.integrations._scheduler_steps import noise_levels

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS = {
    "ddim": DDIMScheduler(**STABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "ddim v": DDIMScheduler(
        **STABLE,
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    ),
    "euler": EulerDiscreteScheduler(**STABLE),
    "euler karras v": EulerDiscreteScheduler(
        **STABLE, use_karras_sigmas=True, prediction_type="v_prediction"
    ),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "dpm": DPMSolverMultistepScheduler(**STABLE, final_sigmas_type="zero"),
    "dpm sde": DPMSolverMultistepScheduler(**STABLE, algorithm_type="sde-dpmsolver++"),
    "dpm flow": DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    ),
}


def clean(scheduler, prediction, x, levels):
    """The original behind a model's prediction, by the definitions of the papers."""
    (a, _), (s, _) = levels.signal, levels.noise
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")
    if kind == "flow_prediction":  # v = e - z
        return x - s * prediction
    if kind == "v_prediction":  # v = a' e - s' z, with a'^2 + s'^2 = 1
        norm = (a**2 + s**2) ** 0.5
        return a / norm * (x / norm) - s / norm * prediction
    return (x - s * prediction) / a


def prediction_of(scheduler, original, x, levels):
    """The prediction whose original this is."""
    (a, _), (s, _) = levels.signal, levels.noise
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")
    eps = (x - a * original) / s
    if kind == "flow_prediction":
        return eps - original
    if kind == "v_prediction":
        norm = (a**2 + s**2) ** 0.5
        return (a * eps - s * original) / norm
    return eps


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_scheduler_makes_of_a_changed_original_what_the_guidance_does(name):
    """x' + gain * change is the scheduler's own step from the original z + change."""
    config = SCHEDULERS[name]
    original_class = type(config)
    change = 0.1 * pattern(1, 4, 3, 3, seed=9).float()
    for steps in (4, 7):
        schedulers = [original_class.from_config(config.config) for _ in range(2)]
        for scheduler in schedulers:
            scheduler.set_timesteps(steps)
        ours, theirs = schedulers
        x = (
            pattern(1, 4, 3, 3).float() * ours.init_noise_sigma
            if hasattr(ours, "init_noise_sigma")
            else pattern(1, 4, 3, 3).float()
        )
        for i, t in enumerate(ours.timesteps):
            if hasattr(ours, "scale_model_input"):
                ours.scale_model_input(x, t), theirs.scale_model_input(x, t)
            predicted = pattern(1, 4, 3, 3, seed=20 + i).float()
            noises = [torch.Generator().manual_seed(i) for _ in range(2)]
            options = [{"generator": g} if "sde" in name else {} for g in noises]
            after = ours.step(predicted, t, x, **options[0], return_dict=False)[0]
            levels = noise_levels(ours, t)
            found = levels.predicted_original(x, after)
            expected = clean(ours, predicted, x, levels)
            assert_close(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
            # order 1: with the multistep solver only where its history is the same
            if "dpm" not in name or i == 0:
                moved = prediction_of(theirs, expected + change, x, levels)
                other = theirs.step(moved, t, x, **options[1], return_dict=False)[0]
                scale = float(other.abs().max())
                assert_close(after + levels.gain * change, other, rtol=1e-3, atol=1e-4 * scale)
            x = after
        assert i == len(ours.timesteps) - 1


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (DDPMScheduler(), "DDPMScheduler, whose steps"),
        (EulerAncestralDiscreteScheduler(), "EulerAncestralDiscreteScheduler"),
        (UniPCMultistepScheduler(), "UniPCMultistepScheduler"),
        (DDIMScheduler(), "DDIMScheduler with clip_sample=True"),
        (DDIMScheduler(clip_sample=False, thresholding=True), "with thresholding=True"),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "stochastic_sampling"),
        (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min"),
         "algorithm_type='sde-dpmsolver'"),
    ],
)  # fmt: skip
def test_schedulers_that_do_not_tell_are_refused(scheduler, said):
    scheduler.set_timesteps(4)
    with pytest.raises(TypeError, match=said):
        noise_levels(scheduler, scheduler.timesteps[0])


class Red:
    """A reward for redness that records its prompts."""

    def __init__(self):
        self.prompts = []

    def __call__(self, images, prompt=None, **placeholders):
        assert images.shape[1:] == (3, 32, 32)
        assert bool(((images >= 0) & (images <= 1)).all())
        self.prompts.append(prompt)
        mean = images.mean((2, 3))
        return mean[:, 0] - mean[:, 1:].mean(1)


@pytest.fixture(scope="module")
def pipe():
    pipeline = tiny_pipeline.build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipe, callback=None, **options):
    settings = {"num_inference_steps": 6, "output_type": "pt", "guidance_scale": 3.0, **options}
    return pipe(
        settings.pop("prompt", "a red cube"),
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=callback,
        **settings,
    ).images


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm"])
def test_pictures_of_a_pipeline_follow_the_reward(pipe, monkeypatch, name):
    monkeypatch.setattr(pipe, "scheduler", SCHEDULERS[name])
    red, prompts = Red(), ["a red cube", "a blue cube"]
    guidance = RewardGuidance(red, prompts, step_size=0.3)
    options = {"prompt": prompts, "num_images_per_prompt": 2}
    alone, guided = run(pipe, **options), run(pipe, guidance, **options)
    assert bool((Red()(guided) > Red()(alone) + 0.003).all())
    assert red.prompts[0] == ["a red cube"] * 2 + ["a blue cube"] * 2
    assert len(guidance.rewards) == (6 if name == "dpm" else 5)
    assert all(each.shape == (4,) for each in guidance.rewards)
    again = run(pipe, guidance, **options)  # nothing is left over from the first run
    assert torch.equal(again, guided)
    assert all(parameter.grad is None for parameter in pipe.vae.parameters())


def test_no_step_is_taken_outside_of_the_window_or_between(pipe):
    red = Red()
    late = RewardGuidance(red, "a red cube", window=(0.5, 1.0), interval=2)
    run(pipe, late)
    assert len(red.prompts) == 1  # of the steps 0 to 5, the fifth: from half on, and even
    assert torch.equal(run(pipe, RewardGuidance(Red(), window=(0, 0))), run(pipe))


def test_it_goes_into_the_callbacks_of_diffusers(pipe):
    red, other = Red(), Red()
    several = MultiPipelineCallbacks([RewardGuidance(r, "a red cube") for r in (red, other)])
    assert several.tensor_inputs == ["latents", "latents"]
    callback_kwargs = {"latents": torch.zeros(1, 4, 16, 16)}
    fake = SimpleNamespace(scheduler=SCHEDULERS["dpm"], num_timesteps=6, vae=pipe.vae)
    fake.scheduler.set_timesteps(6)
    fake.scheduler.step(
        torch.ones(1, 4, 16, 16), fake.scheduler.timesteps[0], torch.ones(1, 4, 16, 16)
    )
    out = several(fake, 0, fake.scheduler.timesteps[0], callback_kwargs)
    assert out["latents"].shape == (1, 4, 16, 16)
    assert len(red.prompts) == len(other.prompts) == 1
    assert float(callback_kwargs["latents"].abs().sum()) == 0  # nothing in place


def test_the_change_has_the_size_that_was_asked_for(pipe):
    latents = noise(2, 4, 16, 16).float()
    guidance = RewardGuidance(Red(), step_size=0.25)
    direction = guidance._direction(pipe, latents)
    assert_close(direction.square().mean((1, 2, 3)).sqrt(), torch.ones(2))
    flat = RewardGuidance(lambda images, prompt=None: 0 * images.sum((1, 2, 3)))
    assert float(flat._direction(pipe, latents).abs().sum()) == 0


def test_latents_are_decoded_as_their_pipeline_does_it(pipe):
    latents = noise(2, 4, 16, 16).float()
    shown = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    assert_close(decode_latents(pipe, latents), (shown + 1) / 2)
    assert_close(decode_latents(SimpleNamespace(), latents[:, :3]), (latents[:, :3] + 1) / 2)
    small = {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 4}
    flux = AutoencoderKL(**small, scaling_factor=0.5, shift_factor=0.1)
    assert_close(
        decode_latents(SimpleNamespace(vae=flux), latents),
        (flux.decode(latents / 0.5 + 0.1).sample + 1) / 2,
    )
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    xl = AutoencoderKL(**small, scaling_factor=0.5, latents_mean=mean, latents_std=std)
    moved = latents / 0.5 * torch.tensor(std).view(1, 4, 1, 1) + torch.tensor(mean).view(1, 4, 1, 1)
    assert_close(
        decode_latents(SimpleNamespace(vae=xl), latents), (xl.decode(moved).sample + 1) / 2
    )
    with pytest.raises(ValueError, match=r"shape \(2, 64, 16\); expected \(B, C, h, w\): pass dec"):
        decode_latents(SimpleNamespace(), torch.zeros(2, 64, 16))


def test_what_is_refused(pipe):
    for options, said in (
        ({"step_size": 0}, "step_size"),
        ({"window": (0.5, 2)}, "window"),
        ({"interval": 0}, "interval"),
        ({"reward": 3}, "expected a reward"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            RewardGuidance(**{"reward": Red(), **options})
    with pytest.raises(ValueError, match="3 prompts are given for 1 images"):
        run(pipe, RewardGuidance(Red(), ["a", "b", "c"]))
    with pytest.raises(RuntimeError, match="without a graph"):
        run(pipe, RewardGuidance(lambda images, prompt=None: images.detach().sum((1, 2, 3))))
    with pytest.raises(RuntimeError, match="not finite; expected numbers: a VAE"):
        run(pipe, RewardGuidance(lambda images, prompt=None: (0 * images).sum((1, 2, 3)).sqrt()))
    with pytest.raises(ValueError, match="hands over no latents"):
        RewardGuidance(Red())(pipe, 0, 0, {})
