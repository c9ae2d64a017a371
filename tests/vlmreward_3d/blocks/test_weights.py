"""The shipped models: their size, and that they have learnt what their cards say."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import vlmreward_3d
from vlmreward import YesNoReward
from vlmreward.wrappers import ExpectationOverTransformations
from vlmreward_3d.blocks.training.measure_alignment import cosines
from vlmreward_3d.blocks.training.train_denoiser import images_of
from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.captions import attribute_question
from vlmreward_3d.blocks.world.dataset import sample_cameras
from vlmreward_3d.blocks.world.descriptions import caption, false_captions
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import Scene, SceneObject, sample_scene
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion

WEIGHTS = Path(vlmreward_3d.__file__).parent / "blocks" / "weights"


@pytest.fixture(scope="module")
def scenes():
    """Forty flawless scenes that nobody was trained on, four views each over gray."""
    rng, generator = np.random.default_rng(31_337), torch.Generator().manual_seed(31_337)
    drawn = [sample_scene(rng, pair=i % 2 == 1) for i in range(40)]
    rings = [sample_cameras(generator, 1) for _ in drawn]
    views = [raycast(s, c, 64).rgba for s, c in zip(drawn, rings)]
    rgba = (torch.stack(views) * 255).round().to(torch.uint8)
    return drawn, rgba, torch.stack([c.condition().float() for c in rings])


@pytest.fixture(scope="module")
def reward():
    return YesNoReward("builtin/blocks", device="cpu")


def test_the_weights_are_small_enough_to_ship(reward):
    models = [folder for folder in WEIGHTS.iterdir() if (folder / "README.md").exists()]
    assert len(models) == 7
    for folder in models:
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 12e6, folder
    assert sum(p.numel() for p in reward.backbone.vlm.parameters()) <= 6e6
    denoiser = PixelDiffusion.from_pretrained("builtin/blocks")
    assert sum(p.numel() for p in denoiser.parameters()) <= 10e6


@pytest.mark.parametrize(
    ("pairs", "kinds"),
    [
        (False, ("attribute", "other", "extra")),
        (True, ("attribute", "swapped colors", "swapped order", "wrong relation")),
    ],
)
def test_the_vlm_tells_true_captions_from_false_ones(reward, scenes, pairs, kinds):
    drawn, rgba, _ = scenes
    images = augment_and_composite(rgba, torch.Generator().manual_seed(0), strength=0)
    rng = np.random.default_rng(0)
    chosen = [i for i, s in enumerate(drawn) if (s.relation is not None) == pairs]
    false = [(i, text) for i in chosen for _, text in false_captions(drawn[i], rng)]
    heard = {kind for i in chosen for kind, _ in false_captions(drawn[i], rng)}
    assert heard == set(kinds)
    yes = reward(images[chosen], prompt=[caption(drawn[i]) for i in chosen]) > 0
    no = reward(images[[i for i, _ in false]], prompt=[text for _, text in false]) < 0
    assert yes.float().mean() >= 0.85
    assert no.float().mean() >= 0.85


@pytest.mark.parametrize(
    ("model", "kind", "least"),
    [
        ("builtin/blocks", "color", 0.95),
        ("builtin/blocks", "shape", 0.9),
        ("builtin/robust", "color", 0.95),
        ("builtin/robust", "shape", 0.9),
        ("builtin/aligned", "color", 0.95),
        ("builtin/aligned", "shape", 0.9),
        ("builtin/strict", "color", 0.95),
        ("builtin/strict", "shape", 0.9),
    ],
)
def test_the_vlms_know_colors_and_shapes(scenes, model, kind, least):
    drawn, rgba, _ = scenes
    ask = YesNoReward(model, question="{prompt}", device="cpu")
    images = augment_and_composite(rgba, torch.Generator().manual_seed(0), strength=0)
    rng = np.random.default_rng(1)
    questions = [attribute_question(s, rng, simple=True) for s in drawn for _ in range(4)]
    index = [i for i in range(len(drawn)) for _ in range(4)]
    keep = [k for k, q in enumerate(questions) if q.kind == kind]
    margins = ask(images[[index[k] for k in keep]], prompt=[questions[k].text for k in keep])
    right = [(m > 0) == questions[k].yes for k, m in zip(keep, margins.tolist())]
    assert len(keep) > 40
    assert np.mean(right) >= least


def test_gradient_ascent_on_the_reward_is_felt_by_the_reward(reward, scenes):
    _, rgba, _ = scenes
    images = augment_and_composite(
        rgba[:1], torch.Generator().manual_seed(0), strength=0
    ).requires_grad_()
    before = reward(images, prompt="a red snowman")
    before.sum().backward()
    step = 0.02 * images.grad / images.grad.abs().amax()
    after = reward((images + step).clamp(0, 1).detach(), prompt="a red snowman")
    assert after.item() > before.item()


@pytest.fixture(scope="module")
def painting(scenes):
    """Views, and what steps two units long towards another object make of them, by a VLM."""
    drawn, rgba, _ = scenes
    singles = [i for i, scene in enumerate(drawn) if scene.relation is None][:4]
    start = augment_and_composite(rgba[singles], torch.Generator().manual_seed(0), strength=0)
    prompts = [caption(drawn[i]) for i in singles[1:] + singles[:1]]

    @functools.cache
    def painted(model):
        steered = ExpectationOverTransformations(
            model, num_samples=2, generator=torch.Generator().manual_seed(1)
        )
        views = start.clone()
        for _ in range(20):
            leaf = views.requires_grad_()
            (slope,) = torch.autograd.grad(steered(leaf, prompt=prompts).sum(), leaf)
            length = slope.flatten(2).norm(dim=2)[..., None, None, None]
            views = (leaf + 2 * slope / length).clamp(0, 1).detach()
        return views

    return start, prompts, painted


@pytest.mark.parametrize("model", ["builtin/robust", "builtin/aligned", "builtin/strict"])
def test_gradients_that_paint_convince_the_other_vlm(reward, painting, model):
    """The one adds noise, the other one paints."""
    start, prompts, painted = painting
    painter = YesNoReward(model, device="cpu")
    found = painted(painter), painted(reward)
    with torch.no_grad():
        convinced, fooled = reward(found[0], prompt=prompts), painter(found[1], prompt=prompts)
        assert reward(start, prompt=prompts).max() < -5
    assert convinced.mean() > 3
    assert fooled.mean() < convinced.mean() - 3


@pytest.mark.parametrize("shape", ["sphere", "cube", "cylinder", "torus"])
def test_the_strict_vlm_says_no_to_what_is_half_another_color(shape):
    cameras = sample_cameras(torch.Generator().manual_seed(3), 1)

    def views(color):
        rgba = raycast(Scene((SceneObject(shape, color, 0.6),), seed=1), cameras, 64).rgba
        return (rgba[..., :3] + 0.5 * (1 - rgba[..., 3:])).permute(0, 3, 1, 2)

    whole, other = views("cyan"), views("orange")
    below, two_of_four = whole.clone(), whole.clone()
    below[..., 32:, :] = other[..., 32:, :]
    two_of_four[2:] = other[2:]
    shown = torch.stack([whole, below, two_of_four, other])
    asked = {
        name: YesNoReward(f"builtin/{name}", device="cpu")(shown, prompt=f"a cyan {shape}")
        for name in ("strict", "robust")
    }
    assert (asked["strict"] > 0).tolist() == [True, False, False, False]
    assert (asked["robust"] > 0).tolist() == [True, True, True, False]


def test_the_gradient_of_the_aligned_vlm_points_furthest_to_what_is_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset, "SHARD", 60)
    data = dataset.render_dataset(tmp_path, 60, seed=31_337, counterparts=True, workers=1)
    found = {}
    for name in ("blocks", "robust", "aligned"):
        ask = YesNoReward(f"builtin/{name}", question="yes-no", device="cpu")
        found[name] = cosines(ask, data, 20).mean()
    assert found["blocks"] < found["robust"] - 0.1
    assert found["robust"] < found["aligned"] - 0.05


def test_the_denoiser_listens_to_the_text(scenes):
    drawn, rgba, cameras = scenes
    denoiser = PixelDiffusion.from_pretrained("builtin/blocks")
    images = images_of(rgba.flatten(0, 1), torch.full((len(drawn) * 4,), 0.6))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    t = torch.full((len(images),), 800)
    alpha = denoiser.alphas_cumprod[800]
    noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
    text = denoiser.encode_text([caption(s) for s in drawn])
    errors = []
    with torch.no_grad():
        for embedding in (text, text.roll(1, 0)):
            spread = embedding.repeat_interleave(4, 0)
            predicted = denoiser.predict_noise(noisy, t, spread, cameras.flatten(0, 1))
            errors.append((predicted - noise).square().mean().item())
    assert errors[0] < 0.95 * errors[1]
