"""A step of the preset `release` against its authors' loss, written down again as one scalar.

The reference shares the random numbers, the places of the samples along the rays and the field's
values there with the code under test, and nothing else: compositing, noise, guidance, rescaling,
both distillation losses, the resize before the reward, and the orientation loss are its own.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from stub_models import build_vlm3d
from torch.testing import assert_close

from vlmreward_3d import presets, vlm3d
from vlmreward_3d.fields import volume
from vlmreward_3d.rendering.ray_sampling import sample_rays
from vlmreward_3d.schedule import Schedule

SMALL = {
    "steps": 20,
    "camera.resolution": Schedule.constant(10),
    "field.resolutions": (4, 9),
    "field.occupancy.resolution": 8,
    "field.rays.samples_per_ray": 7,
    "field.shading": None,
}
STEP = 3
PROMPT = "a red cube"


class Linear:
    """Latents that mix channels and neighbors; noise that depends on all views of a group."""

    n_views = 4

    def __init__(self):
        generator = torch.Generator().manual_seed(1)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.alphas_cumprod = torch.linspace(0.999, 0.005, 1000, dtype=torch.float64) ** 2
        self.encoder, self.kernel = draw(4, 3, 2, 2), 0.1 * draw(4, 4, 3, 3)
        self.words, self.angles = 0.3 * draw(4, 3), 0.2 * draw(4, 16)

    def encode_text(self, texts):
        numbers = [sum(map(ord, text)) for text in texts]
        return (
            torch.tensor(numbers, dtype=torch.float64).mul(0.7).sin().view(-1, 1, 1).repeat(1, 2, 3)
        )

    def to_latents(self, images):
        return F.conv2d(2 * images - 1, self.encoder, stride=2)

    def predict_noise(self, noisy, t, text, cameras):
        self.asked = (noisy, t)
        group = noisy.unflatten(0, (-1, 4)).mean(1, keepdim=True).expand(-1, 4, -1, -1, -1)
        told = text.mean(1) @ self.words.T + cameras @ self.angles.T + (t / 1000)[:, None]
        mixed = F.conv2d(noisy + group.flatten(0, 1), self.kernel, padding=1)
        return mixed * (1 + 0.1 * told[..., None, None]) + 0.2 * told[..., None, None]


def taste(images, prompt):
    """A reward (B,) of all views together that is no linear function of any pixel."""
    assert prompt == PROMPT
    assert images.shape[1:] == (8, 3, 256, 256)
    rows = torch.linspace(-1, 1, 256, dtype=images.dtype)
    seen = (images * rows[:, None]).mean((-1, -2)) + images.square().mean((-1, -2))
    return 3 * torch.tanh(seen.mean((1, 2))) + seen.prod(2).sum(1)


@pytest.fixture
def double(monkeypatch):
    """float64 everywhere."""
    sample = vlm3d.sample_groups
    monkeypatch.setattr(
        vlm3d, "sample_groups", lambda *args, **named: sample(*args, **named, dtype=torch.float64)
    )
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def spied(monkeypatch, model):
    """Lists that will hold the call of the renderer and of the denoiser, with random states."""
    rendered, asked = [], []
    for name in ("render_with_graph", "render_deferred"):
        real = getattr(volume, name)

        def render(baked, grid, cameras, side, *, real=real, **named):
            state = named["generator"].get_state()
            rendered.append((copy.deepcopy(grid), cameras, side, named["background"], state))
            return real(baked, grid, cameras, side, **named)

        monkeypatch.setattr(volume, name, render)
    term = model.guidances.terms[0]
    distillation = term.guidance

    def ask(pixels, cameras, progress, generator):
        level = distillation.t_min(progress), distillation.t_max(progress)
        asked.append((level, generator.get_state()))
        return distillation(pixels, cameras, progress, generator)

    term.guidance = ask
    return rendered, asked


def generator_at(state):
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def look(field, call, n_samples):
    """Pictures (8, 3, s, s) and the orientation loss, with their graph."""
    grid, cameras, side, background, state = call
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(side, side))
    samples = sample_rays(grid, origins, directions, n_samples, generator=generator_at(state))
    toward = directions[samples.rays, None]
    points = origins[samples.rays, None] + samples.middles[..., None] * toward
    values = field.representation.bake(normals=True)(points.reshape(-1, 3))
    density = values.density.view(samples.middles.shape)
    colors, normals = (x.view(*density.shape, 3) for x in (values.rgb, values.normals))

    through = torch.exp(-torch.cumsum(density * samples.lengths, dim=1))
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
    weights = before - through
    behind = background.repeat_interleave(side * side, dim=0)
    rgb = behind.index_copy(
        0,
        samples.rays,
        (weights[..., None] * colors).sum(1) + through[:, -1:] * behind[samples.rays],
    )

    # their renderer drops samples whose alpha over one of 512 steps is below 0.01, or below
    # that of the mean cell; a ray is visible if a sample is left
    step = 2 * math.sqrt(3) / 512
    alpha = 1 - torch.exp(-density.detach() * step)
    kept = alpha >= min(0.01, float(grid.peak.mean()) * step)
    assert 0 < kept.any(1).sum() < len(kept)
    away = (normals * toward).sum(-1).clamp_min(0) ** 2
    orientation = (weights.detach() * away * kept).sum() / kept.any(1).sum()
    return rgb.view(8, side, side, 3).movedim(-1, 1), orientation


def distillation(config, denoiser, images, cameras, call):
    """Their loss: the target is without gradient, and the sum over latents is divided by 8."""
    (lowest, highest), state = call
    generator = generator_at(state)
    share = float(torch.rand(1, generator=generator))
    t = int(1000 * (lowest + (highest - lowest) * share))
    latents = denoiser.to_latents(images)
    noise = torch.randn(latents.shape, generator=generator)
    a = denoiser.alphas_cumprod[t]
    noisy = (a.sqrt() * latents + (1 - a).sqrt() * noise).detach()
    times = torch.full((8,), t)
    position = cameras.c2w[:, :3, 3]
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] = position / position.norm(dim=1, keepdim=True)

    def eps(text):
        told = denoiser.encode_text([text]).expand(8, -1, -1)
        return denoiser.predict_noise(noisy, times, told, c2w.view(8, 16))

    without, conditional = eps(config.score_distillation.negative_prompt), eps(config.prompt)
    guided = without + 50 * (conditional - without)
    if config.score_distillation.rule == "sds":
        target = latents - (1 - a) * (guided - noise)
    else:
        x0, plain = ((noisy - (1 - a).sqrt() * e) / a.sqrt() for e in (guided, conditional))
        parts = []
        for ring in (slice(0, 4), slice(4, 8)):
            factor = plain[ring].std() / x0[ring].std()
            parts.append(0.5 * factor * x0[ring] + 0.5 * x0[ring])
        target = torch.cat(parts)
    return 0.5 * (latents - target.detach()).square().sum() / 8, t, noisy


@pytest.mark.parametrize("chunk", [None, 130])
@pytest.mark.parametrize("rule", ["x0", "sds"])
def test_a_step_is_the_gradient_of_the_authors_loss(rule, chunk, double, monkeypatch):
    chosen = {"score_distillation.rule": rule, "field.rays.rays_per_chunk": chunk}
    config = presets.release(PROMPT).replace(SMALL | chosen)
    denoiser = Linear()
    model = build_vlm3d(config, denoiser, taste)
    for level in model.field.representation.levels:
        level.data.normal_(std=0.7, generator=model.generator)
    model.field.update_occupancy(model.generator)
    field = copy.deepcopy(model.field)
    rendered, asked = spied(monkeypatch, model)
    model.step_index = STEP
    report = model.step()
    ours = [p.grad for p in model.field.parameters()]
    their_noisy, their_times = denoiser.asked

    # 0.15 of the run: lambda falls over the first half, orientation grows over the first quarter
    lam, orient = 300 + (1 - 300) * 0.15 / 0.5, 10 + 990 * 0.15 / 0.25
    images, orientation = look(field, rendered[0], config.field.rays.samples_per_ray)
    loss, t, noisy = distillation(config, denoiser, images, rendered[0][1], asked[0])
    assert 1000 * (0.98 - 0.96 * 0.15 / 0.4) <= t <= 1000 * (0.98 - 0.48 * 0.15 / 0.4)
    assert their_times.tolist() == [t] * 16
    assert_close(their_noisy, noisy.repeat(2, 1, 1, 1))
    shown = F.interpolate(images, (256, 256), mode="bilinear", align_corners=False).clamp(0, 1)
    reward = taste(shown[None], PROMPT)[0]
    parts = (loss, -lam * reward, orient * orientation)
    assert report.metrics["sds/loss"] == pytest.approx(loss.item(), rel=1e-10)
    assert report.metrics["vlm/reward"] == pytest.approx(reward.item(), rel=1e-10)
    assert report.metrics["vlm/weight"] == pytest.approx(lam, rel=1e-12)

    # none of the three is lost in the others' rounding
    parameters = list(field.parameters())
    norms = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(p, parameters, retain_graph=True)]
        ).norm()
        for p in parts
    ]
    assert min(norms) > 1e-4 * max(norms)
    expected = torch.autograd.grad(sum(parts), parameters)
    for mine, theirs in zip(ours, expected):
        assert (mine - theirs).norm() < 1e-6 * theirs.norm()
