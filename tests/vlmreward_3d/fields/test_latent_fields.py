"""Volumes that hold latents: what they render, how they become RGB, and what is exported."""

import copy
import functools

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import (
    DenseGridConfig,
    HashGridConfig,
    LatentRenderingConfig,
    OccupancyConfig,
    RaySamplingConfig,
)
from vlmreward_3d.export.mesh import marching_cubes
from vlmreward_3d.export.mesh.marching_cubes import colors_at, extract_surface
from vlmreward_3d.fields import build_field
from vlmreward_3d.fields.dense_grid import DenseGrid
from vlmreward_3d.rendering.base import RegularizerWeights
from vlmreward_3d.rendering.latents import (
    decode_latents,
    encode_colors,
    latent_matrix,
    latents_to_rgb,
)

SHARED = {"occupancy": OccupancyConfig(resolution=8), "density_scale": 2.0}
FIELDS = {
    "dense": lambda **s: DenseGridConfig(resolutions=(3, 6), **SHARED, **s),
    "hash": lambda **s: HashGridConfig(
        levels=2, resolution_range=(3, 6), table_size=512, **SHARED, **s
    ),
}


def build(kind, chunk=None, refine_at=0.5):
    """A field in float64 whose parameters are all random, but for the decoder."""
    config = FIELDS[kind](
        rays=RaySamplingConfig(samples_per_ray=5, rays_per_chunk=chunk),
        latents=LatentRenderingConfig(refine_at=refine_at),
    )
    generator = torch.Generator().manual_seed(0)
    field = build_field(config, generator).double()
    with torch.no_grad():
        for parameter in field.parameters():
            if parameter.shape == (4, 3):  # the decoder, without the rounding to float32
                assert_close(parameter, latent_matrix(parameter), atol=1e-7, rtol=0)
                parameter.copy_(latent_matrix(parameter))
            else:
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        # large latents, so that some colors are beyond [0, 1]
        if kind == "dense":
            for level in field.representation.levels:
                level[:, 1:] *= 8
        else:
            field.representation.network[2].weight[1:] *= 8
    field.update_occupancy(generator)
    return field


def optimizer_of(field):
    return torch.optim.AdamW([{"params": p} for p, _ in field.parameter_groups()], lr=0.01)


def end_step(field, progress, optimizer=None, step=7):
    optimizer = optimizer or optimizer_of(field)
    return field.end_step(step, progress=progress, optimizer=optimizer, generator=torch.Generator())


def rendered(field, side=6):
    generator = torch.Generator().manual_seed(1)
    background = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    cameras = Cameras.turntable(2, dtype=torch.float64)
    return field.render(cameras, side, background=background, generator=generator)


@pytest.mark.parametrize("kind", FIELDS)
def test_latents_are_rendered_without_an_activation(kind):
    field = build(kind)
    views = rendered(field)
    assert views.rgb.shape == (2, 4, 6, 6)
    assert views.images is views.rgb
    assert views.rgb.min() < -0.5
    assert 0.1 < views.opacity.max() < 1


def test_the_latents_of_a_plain_field_in_closed_form():
    """Everywhere the same latents f: f times the opacity, and the background's for the rest."""
    field, value = build("dense"), torch.tensor([3.0, -2.0, 0.5, 7.0], dtype=torch.float64)
    with torch.no_grad():
        for level, share in zip(field.representation.levels, (0.25, 0.75)):
            level[:, 1:] = share * value[:, None, None, None]
    views = rendered(field)
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    behind = encode_colors(background)[..., None, None]
    expected = views.opacity * value[:, None, None] + (1 - views.opacity) * behind
    assert_close(views.rgb, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("chunk", [None, 10])
def test_the_refinement_begins_with_the_picture_that_the_latents_ended_with(kind, chunk):
    field = build(kind, chunk)
    before, state = rendered(field), copy.deepcopy(field.state_dict())
    assert end_step(field, 0.49) == ()
    (event,) = end_step(field, 0.5)
    assert event.startswith("step 8: RGB is rendered from here on")
    assert end_step(field, 0.6) == ()
    after = rendered(field)
    assert after.rgb.shape == (2, 3, 6, 6)
    assert_close(after.rgb, decode_latents(before.rgb), atol=1e-12, rtol=0)
    assert_close(after.opacity, before.opacity, atol=0, rtol=0)
    assert (after.rgb.max() > 1) or (after.rgb.min() < 0)  # nothing is cut off at points
    assert 0 <= after.images.min() <= after.images.max() <= 1
    changed = {k for k, v in field.state_dict().items() if not torch.equal(v, state[k])}
    assert changed == {"representation.head.refines"}


@pytest.mark.parametrize("kind", FIELDS)
def test_pictures_are_rgb_and_the_same_in_both_stages(kind):
    field = build(kind)
    cameras = Cameras.turntable(2, dtype=torch.float64)
    before = torch.stack(list(field.render_images(cameras, 5, normals=True)))
    assert before.shape == (2, 3, 10, 5)
    assert 0 <= before.min() < before.max() <= 1
    end_step(field, 0.5)
    after = torch.stack(list(field.render_images(cameras, 5, normals=True)))
    assert_close(after, before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", FIELDS)
def test_the_gradient_of_both_stages_against_plain_autograd(kind):
    """The loss is the squared picture; the decoder gets a gradient only once it is trained."""
    for refined in (False, True):
        found = []
        for chunk in (None, 10):
            field = build(kind, chunk)
            if refined:
                end_step(field, 0.5)
            views = rendered(field)
            views.backward(2 * views.rgb, RegularizerWeights(emptiness=3.0, sparsity=0.5))
            found.append({name: p.grad for name, p in field.named_parameters()})
        plain, deferred = found
        assert (plain["representation.head.decoder"] is not None) == refined
        for name, gradient in plain.items():
            if gradient is None:
                assert deferred[name] is None
                continue
            assert gradient.abs().max() > 1e-6
            assert_close(deferred[name], gradient, atol=1e-10, rtol=1e-8)


def test_the_gradient_at_the_decoder_in_closed_form():
    """Features f everywhere: the sum of all pixels has the gradient f / 2 times the opacity."""
    field, value = build("dense"), torch.tensor([3.0, -2.0, 0.5, 7.0], dtype=torch.float64)
    with torch.no_grad():
        for level, share in zip(field.representation.levels, (0.25, 0.75)):
            level[:, 1:] = share * value[:, None, None, None]
    end_step(field, 0.5)
    views = rendered(field)
    views.backward(torch.ones_like(views.rgb), RegularizerWeights())
    expected = views.opacity.sum() * value[:, None].expand(4, 3) / 2
    assert_close(field.representation.head.decoder.grad, expected)


def test_the_optimizer_begins_anew_with_the_refinement():
    field = build("dense")
    optimizer = optimizer_of(field)
    for progress, remembered in ((0.4, True), (0.5, False), (0.6, True)):
        views = rendered(field)
        views.backward(views.rgb, RegularizerWeights())
        optimizer.step()
        end_step(field, progress, optimizer)
        assert (len(optimizer.state) > 0) == remembered


def test_without_a_refinement_the_decoder_is_no_parameter():
    field = build("dense", refine_at=None)
    head = field.representation.head
    assert list(head.parameters()) == []
    assert end_step(field, 1.0) == ()
    assert not head.refines
    assert {"decoder", "refines"} == set(head.state_dict())


@pytest.mark.parametrize("kind", FIELDS)
def test_colors_of_meshes_are_decoded_and_in_range(kind):
    field = build(kind)
    points = (
        torch.rand(40, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    )
    with torch.no_grad():
        features = field.representation.bake()(points).rgb
    assert features.shape == (40, 4)
    expected = latents_to_rgb(features)
    assert expected.max() > 1 or expected.min() < 0
    found = torch.from_numpy(colors_at(field, points.numpy()))
    assert_close(found, expected.clamp(0, 1), atol=1e-12, rtol=0)


def test_the_mesh_of_a_field_of_latents_has_its_colors(monkeypatch):
    coarse = functools.partial(marching_cubes.carve, size=24, n_views=4)
    monkeypatch.setattr(marching_cubes, "carve", coarse)
    config = DenseGridConfig(resolutions=(16,), density_scale=20.0, latents=LatentRenderingConfig())
    field, red = build_field(config), torch.tensor([0.9, 0.2, 0.3])
    with torch.no_grad():
        field.representation.levels[0][:, 1:] = encode_colors(red)[:, None, None, None]
    surface = extract_surface(field.for_evaluation(), resolution=24)
    assert len(surface.faces) > 100
    colors = torch.from_numpy(surface.rgb).float()
    assert_close(colors, red.expand(len(surface.vertices), 3), atol=1e-5, rtol=0)


def test_the_density_of_a_gain_and_a_bias_in_closed_form():
    grid = DenseGrid((2, 4), blob_density=0.0, density_bias=-1.0, learned_gain=True).double()
    points = torch.rand(9, 3, dtype=torch.float64) - 0.5
    start = torch.nn.functional.softplus(torch.full((9,), -1.0, dtype=torch.float64))
    assert_close(grid.bake().density(points), start)
    with torch.no_grad():
        grid.levels[0][:, 0] = 2.0
        grid.levels[1][:, 0] = 1.0
        grid.log_gain.fill_(0.5)
    density = grid.bake().density(points)
    gain = torch.tensor(0.5, dtype=torch.float64).exp()
    assert_close(density, torch.nn.functional.softplus(3 * gain - 1).expand(9))
    density.sum().backward()
    slope = 9 * torch.sigmoid(3 * gain - 1) * 3 * gain
    assert_close(grid.log_gain.grad, slope)
    assert [len(p) for p, _ in grid.parameter_groups()] == [3]


def test_the_bias_of_a_hash_grid_lowers_its_logits():
    config = FIELDS["hash"]()
    fields = [
        build_field(c, torch.Generator().manual_seed(0)).representation
        for c in (config, FIELDS["hash"](density_bias=-2.5))
    ]
    points = torch.rand(9, 3) - 0.5
    plain, lowered = (field.logits(points) for field in fields)
    assert_close(plain[:, 0] - 2.5, lowered[:, 0])
    assert_close(plain[:, 1:], lowered[:, 1:])
