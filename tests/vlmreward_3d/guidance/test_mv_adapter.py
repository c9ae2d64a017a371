"""MV-Adapter: six orthographic views by Stable Diffusion 2.1 and XL."""

import functools
import math

import pytest
import torch
from diffusers_reference import camera_features, row_attention, unet
from safetensors.torch import save_file
from stub_models import build_vlm3d
from tiny_latent_models import adapter_state, randomized, stable, stable_xl
from torch.testing import assert_close

from vlmreward_3d import presets
from vlmreward_3d.cameras import Cameras, orbit, sample_groups
from vlmreward_3d.guidance.diffusion.mv_adapter import MVAdapter
from vlmreward_3d.guidance.diffusion.mv_adapter.attention import RowAttention
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion_xl import StableDiffusionXL
from vlmreward_3d.guidance.loading import load_denoiser, load_guidances
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import VLM3D

AZIMUTHS = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)


def levels(kind, model):
    """Attention heads by level, factor of the camera encoder, and its blocks that halve."""
    given = model.unet.config.attention_head_dim
    heads = given if isinstance(given, (list, tuple)) else (given,) * 2
    return (tuple(heads), 16, {2}) if kind == "xl" else (tuple(heads), 8, {1})


MODELS = {"sd": stable, "xl": stable_xl}


@functools.cache
def adapted(kind, dtype=torch.float64):
    """A denoiser, its UNet's tensors before the adapter came, and the adapter's."""
    model = MODELS[kind]()
    randomized(model.unet)
    state = adapter_state(model.unet)
    own = {k: v.to(dtype) for k, v in model.unet.state_dict().items()}
    model.attach(MVAdapter(model.unet, state))
    return model.to(dtype), own, {k: v.to(dtype) for k, v in state.items()}


def ring(groups=1, **changes):
    options = {
        "fov_deg": (34.0, 34.0),
        "elevation_deg": (0.0, 0.0),
        "object_radius": (1.1, 1.1),
        "azimuth_deg": AZIMUTHS,
        "projection": "orthographic",
        "dtype": torch.float64,
    }
    return sample_groups(groups, 6, **{**options, **changes})


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def condition(side):
    """The six conditions of the source: unit vectors at azimuths that are 90 degrees less."""
    rows = []
    for azimuth in AZIMUTHS:
        angle = math.radians(azimuth - 90)
        x, y = math.cos(angle), math.sin(angle)
        rows.append([(v + 1) / 2 for v in (-x, -y, 0, x, y, 0)])
    return torch.tensor(rows, dtype=torch.float64)[:, :, None, None].expand(-1, -1, side, side)


@pytest.mark.parametrize("kind", MODELS)
def test_noise_and_its_gradient_equal_the_reference(kind):
    model, own, state = adapted(kind)
    heads, factor, down = levels(kind, model)
    noisy = random(6, 4, 8, 8).requires_grad_()
    t = torch.full((6,), 300)
    text = model.encode_text(["a red cube"]).repeat(6, 1, 1).requires_grad_()
    found = model.predict_noise(noisy, t, text, ring().condition())
    features = camera_features(condition(64), state, factor, down)
    told = {"context": text}
    if kind == "xl":
        sizes = torch.tensor([16.0, 16, 0, 0, 16, 16]).double().expand(6, 6)
        told = {"context": text[:, :-1], "pooled": text[:, -1, :8], "sizes": sizes}
    options = {"heads": heads, "adapter": state, "features": features, "views": 6}
    expected = unet(noisy, t, state=own, **told, **options)
    assert_close(found, expected, rtol=1e-7, atol=1e-9)
    without = unet(noisy, t, state=own, **told, heads=heads)
    assert (expected - without).abs().mean() > 0.1 * without.abs().mean()
    weights = random(6, 4, 8, 8, seed=1)
    ours = torch.autograd.grad((found * weights).sum(), [noisy, text])
    theirs = torch.autograd.grad((expected * weights).sum(), [noisy, text])
    assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_rows_of_a_group_see_each_other_and_no_others():
    rows = randomized(RowAttention(8, 8)).double()
    hidden = random(12, 16, 8).requires_grad_()
    found = rows(hidden, heads=2, n_views=6)
    assert_close(found, row_attention(hidden, rows.state_dict(), 2, 6))
    (gradient,) = torch.autograd.grad(found[3, 5].sum(), hidden)  # of view 3 the second row
    reached = gradient.abs().sum(-1) > 0
    assert reached[:6, 4:8].all()
    reached[:6, 4:8] = False
    assert not reached.any()
    with pytest.raises(ValueError, match=r"7 pictures of 16 tokens; expected a multiple of 6"):
        rows(random(7, 16, 8), heads=2, n_views=6)
    with pytest.raises(ValueError, match="expected a multiple of 6 square ones"):
        rows(random(6, 12, 8), heads=2, n_views=6)


def test_the_schedule_is_shifted_towards_noise():
    """log SNR less t / (T - 1) log 8, and the betas of the source's scheduler."""
    base = stable().scheduler.alphas_cumprod.double()
    found = MVAdapter.alphas_cumprod(base)
    share = torch.arange(1000).double() / 999
    snr = (base / (1 - base)).log() * (1 - share) + (base / (1 - base) / 8).log() * share
    assert_close(found, snr.sigmoid())
    betas = 1 - found[1:] / found[:-1]
    assert ((betas > 0) & (betas < 1)).all()
    model, _, _ = adapted("sd", torch.float32)
    assert_close(model.alphas_cumprod, found.float())


def test_the_largest_latents_are_those_of_the_training():
    model = stable_xl(sample_size=128)
    assert (model.resolution, model.image_resolution) == (128, 256)
    model.attach(MVAdapter(model.unet, adapter_state(model.unet)))
    assert (model.resolution, model.image_resolution, model.n_views) == (96, 192, 6)
    assert model._text(torch.zeros(1, 13, 16))["added_cond_kwargs"]["time_ids"][0, 0] == 192


@pytest.mark.parametrize("kind", MODELS)
def test_tensors_have_to_fit(kind):
    model = MODELS[kind]()
    state = adapter_state(model.unet)
    attention = next(name for name in state if name.endswith("to_q_mv.weight"))
    MVAdapter(model.unet, state)
    for wrong, message in (
        ({k: v for k, v in state.items() if k != attention}, rf"1 missing \({attention}\); exp"),
        ({**state, "adapter.body.9.x": torch.zeros(1)}, r"1 unknown \(adapter\.body\.9\.x\); exp"),
        ({**state, attention: torch.zeros(2, 3)}, r"1 of another shape \(.*: \(2, 3\) for \("),
    ):
        with pytest.raises(ValueError, match=message):
            MVAdapter(model.unet, wrong)
    other = MODELS["xl" if kind == "sd" else "sd"]()
    with pytest.raises(ValueError, match=r"does not fit the UNet: tensors .* missing .* unknown"):
        MVAdapter(other.unet, state)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (ring(projection="perspective"), "6 perspective views; expected groups of 6 orthographic"),
        (ring()[:4], "4 orthographic views; expected"),
        (ring(azimuth_deg=(0, 60, 120, 180, 240, 300)), "azimuths .*60, .* elevations from 0 to 0"),
        (ring(elevation_deg=(15.0, 15.0)), "elevations from 15 to 15; expected .* elevation 0"),
    ],
)
def test_other_cameras_are_refused(cameras, message):
    with pytest.raises(ValueError, match=message):
        MVAdapter.check_cameras(cameras)
    model, _, _ = adapted("sd", torch.float32)
    distillation = ScoreDistillation(model, "a red cube", guidance_scale=7.0)
    images = torch.rand(len(cameras) // 6 * 6 or 6, 3, 16, 16)
    if len(images) == len(cameras):
        with pytest.raises(ValueError, match=message):
            distillation(images, cameras, 0.0, torch.Generator())


def test_cameras_of_the_training_pass_in_any_order_and_near_them():
    MVAdapter.check_cameras(ring(3))
    MVAdapter.check_cameras(ring()[[5, 1, 0, 3, 4, 2]])
    near = torch.tensor(AZIMUTHS).double() + torch.tensor([-0.5, 0.5, 0.5, -0.5, 0.5, 0.5])
    MVAdapter.check_cameras(orbit(near, 0.5, 3.6, 34.0, projection="orthographic"))
    stable().check_cameras(Cameras.turntable(3))  # one without the adapter takes any


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for kind, make in MODELS.items():
        model = make()
        model.save_pretrained(root / kind)
        save_file(adapter_state(model.unet), root / f"{kind}.safetensors")
    return root


@pytest.mark.parametrize(("kind", "model"), [("sd", StableDiffusion), ("xl", StableDiffusionXL)])
def test_base_and_adapter_are_loaded_by_their_names(folders, kind, model):
    base, adapter = str(folders / kind), str(folders / f"{kind}.safetensors")
    loaded = load_denoiser(base, adapter=adapter)
    assert type(loaded) is model
    assert not any(p.requires_grad for p in loaded.parameters())
    expected = MODELS[kind]()
    expected.attach(MVAdapter(expected.unet, adapter_state(expected.unet)))
    text = expected.encode_text(["a red cube"]).expand(6, -1, -1)
    given = random(6, 4, 8, 8).float(), torch.full((6,), 500), text, ring().condition().float()
    assert_close(loaded.predict_noise(*given), expected.predict_noise(*given))
    half = load_denoiser(base, adapter=adapter, precision="bfloat16")
    assert {p.dtype for p in half.adapter.parameters()} == {torch.bfloat16}
    assert half.vae.dtype == (torch.float32 if kind == "xl" else torch.bfloat16)
    assert half.predict_noise(*given).dtype == torch.float32
    alone = load_denoiser(base)
    assert (alone.n_views, alone.adapter) == (1, None)
    loaded.save_pretrained(folders / "again")  # the base, as it was
    assert load_denoiser(str(folders / "again")).adapter is None


def test_adapters_that_cannot_be_loaded(folders, tmp_path):
    base = str(folders / "sd")
    for name in ("none.safetensors", "adapter.ckpt", "some/where/else.safetensors"):
        with pytest.raises(OSError, match=r"cannot load the adapter .*; expected a file in safet"):
            load_denoiser(base, adapter=name)
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(OSError, match="cannot load the adapter"):
        load_denoiser(base, adapter=str(tmp_path / "damaged.safetensors"))
    with pytest.raises(ValueError, match="does not fit the UNet"):
        load_denoiser(base, adapter=str(folders / "xl.safetensors"))
    with pytest.raises(ValueError, match=r"for 'builtin/blocks'; expected Stable Diffusion 2\.1"):
        load_denoiser("builtin/blocks", adapter=str(folders / "sd.safetensors"))
    model, _, state = adapted("sd", torch.float32)
    with pytest.raises(ValueError, match="for a denoiser of 6 views; expected one of single views"):
        model.attach(MVAdapter(model.unet, state))


def test_stable_diffusion_xl_says_what_its_pipeline_says():
    model = stable_xl()
    embedded, none, pooled, zero = model.pipeline.encode_prompt(
        ["a red cube", "a cone"], negative_prompt=None, do_classifier_free_guidance=True
    )
    found = model.encode_text(["a red cube", "", "a cone"])
    assert_close(found[[0, 2], :-1], embedded)
    assert_close(found[[0, 2], -1, :8], pooled)
    assert not found[:, -1, 8:].any()
    for part in (found[1], none, zero):
        assert not part.any()
    images = torch.rand(2, 3, 16, 16)
    exact = model.to_latents(images)
    model.autocast = torch.bfloat16
    assert torch.equal(model.to_latents(images), exact)  # the autoencoder works in float32
    with pytest.raises(ValueError, match="has 12 as width of what is added; expected 32"):
        stable_xl(projection_class_embeddings_input_dim=12)
    model.pipeline.text_encoder = None
    with pytest.raises(ValueError, match="there is one text encoder; expected both"):
        StableDiffusionXL(model.pipeline)


def test_a_student_shares_the_adapter():
    model, _, _ = adapted("sd", torch.float32)
    distillation = ScoreDistillation(model, "a red cube", rule="vsd", guidance_scale=7.5)
    copied = distillation.student.denoiser
    place = next(name for name in model.unet.attn_processors if ".attn1." in name)
    mine, its = model.unet.attn_processors[place], copied.unet.attn_processors[place]
    assert mine.rows is its.rows
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    output = distillation(images, ring().to(torch.float32), 0.5, torch.Generator().manual_seed(0))
    assert output.gradient.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize(("kind", "field"), [("sd", "dense_grid"), ("xl", "gaussians")])
def test_the_preset_runs_with_it(folders, kind, field):
    config = presets.mvadapter("a red cube", field=field, denoiser=str(folders / kind))
    small = {
        "steps": 4,
        "score_distillation.adapter": str(folders / f"{kind}.safetensors"),
        "camera.resolution": Schedule.steps(12, (0.5, 16)),
    }
    if field == "dense_grid":
        small |= {"field.resolutions": (4, 8), "field.occupancy.resolution": 8}
        small |= {"field.rays.samples_per_ray": 6}
    else:
        small["field.n_gaussians"] = 40
    model = VLM3D(config.replace(small), load_guidances(config.replace(small)))
    before = [p.detach().clone() for p in model.field.parameters()]
    assert torch.equal(model._background(1), torch.full((6, 3), 0.5))
    reports = [model.step() for _ in range(4)]
    assert all(report.metrics["sds/grad_norm"] > 0 for report in reports)
    assert any((a != b).any() for a, b in zip(before, model.field.parameters()))


def test_the_preset_has_the_cameras_of_the_training():
    config = presets.mvadapter("a cat")
    camera = config.camera
    assert config.vlm is None
    assert (camera.azimuth_deg, camera.background) == (AZIMUTHS, "mid-gray")
    model = build_vlm3d(config, _Six(), None)
    cameras = model._sample_cameras(0.0)
    MVAdapter.check_cameras(cameras)
    # twice the source's world: there objects have the half side 0.5, seen within 0.55 from 1.8
    assert_close(cameras.half_heights / 2, torch.full((6,), 0.55))
    assert_close(cameras.positions.norm(dim=-1) / 2, torch.full((6,), 1.8), atol=2e-3, rtol=0)


class _Six:
    n_views = 6
    alphas_cumprod = torch.ones(2)

    def encode_text(self, texts):
        return torch.zeros(len(texts), 1, 1)

    def predict_noise(self, noisy, t, text, cameras):
        return noisy
