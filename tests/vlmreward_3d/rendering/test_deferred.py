"""Deferred back-propagation against plain back-propagation."""

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.cameras import sample_groups
from vlmreward_3d.fields.dense_grid import DenseGrid
from vlmreward_3d.rendering.base import RegularizerWeights
from vlmreward_3d.rendering.deferred import render_deferred, render_with_graph
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.shading import lambertian, light_direction

PENALTIES = RegularizerWeights(
    orientation=3.0, entropy=0.5, sparsity=0.7, variation=0.2, emptiness=0.6
)


def scene(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    field = DenseGrid((4, 8), density_scale=5.0, generator=generator).to(dtype)
    with torch.no_grad():
        for level in field.levels:
            level.add_(0.3 * torch.randn(level.shape, generator=generator).to(dtype))
    baked = field.bake(normals=True)
    grid = OccupancyGrid(8, bound=1.0, threshold=0.01, decay=0.8).to(dtype)
    grid.update(baked.density, generator)
    cameras = sample_groups(
        2, 4, fov_deg=(30, 50), elevation_deg=(0, 30), object_radius=(1, 1.5), generator=generator
    )
    return field, baked, grid, cameras.to(dtype)


def lit(field, points, views):
    lights = torch.randn(8, 3, generator=torch.Generator().manual_seed(2)).to(points)
    return lambertian(field.rgb, field.normals, light_direction(points, lights[views]), 0.7)


def gradients(method, chunk, penalties=PENALTIES, shader=lit, side=12):
    field, baked, grid, cameras = scene()
    generator = torch.Generator().manual_seed(1)
    options = {} if method is render_with_graph else {"rays_per_chunk": chunk}
    views = method(
        baked,
        grid,
        cameras,
        side,
        n_samples=7,
        background=torch.rand(8, 3, generator=generator, dtype=torch.float64),
        shader=shader,
        generator=generator,
        **options,
    )
    at_pixels = torch.randn(views.rgb.shape, generator=generator, dtype=torch.float64)
    views.backward(at_pixels, penalties)
    return views, [level.grad for level in field.levels], generator.get_state()


@pytest.mark.parametrize("chunk", [50, 100, 144, 1000, 5000])
def test_deferred_equals_plain(chunk):
    plain, expected, state = gradients(render_with_graph, None)
    views, found, after = gradients(render_deferred, chunk)
    assert torch.equal(state, after)  # the same random numbers were used
    assert 0 < views.n_active_rays == plain.n_active_rays < 8 * 144
    assert_close(views.rgb, plain.rgb, atol=1e-12, rtol=0)
    assert_close(views.opacity, plain.opacity, atol=1e-12, rtol=0)
    assert_close(views.surface().depth, plain.surface().depth, atol=1e-12, rtol=0)
    assert torch.equal(views.surface().opacity, views.opacity)
    for ours, theirs in zip(found, expected):
        assert theirs.abs().max() > 1e-3
        assert_close(ours, theirs, atol=1e-10, rtol=1e-8)
    assert not views.rgb.requires_grad


@pytest.mark.parametrize("name", ["orientation", "entropy", "sparsity", "variation", "emptiness"])
def test_each_penalty_alone(name):
    penalties = RegularizerWeights(**{name: 2.0})
    _, expected, _ = gradients(render_with_graph, None, penalties, shader=None)
    _, found, _ = gradients(render_deferred, 130, penalties, shader=None)
    _, without, _ = gradients(render_deferred, 130, RegularizerWeights(), shader=None)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(found, without))
    for ours, theirs in zip(found, expected):
        assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


class Kept:
    """Bytes that graphs keep, and the most at a time; a slice counts as what it shows."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return Held(self, tensor)


class Held:
    def __init__(self, kept, tensor):
        # detached: an output that is kept would keep its graph, and that the output
        self.kept, self.tensor = kept, tensor.detach()
        kept.now += tensor.nbytes
        kept.most = max(kept.most, kept.now)

    def __del__(self):
        self.kept.now -= self.tensor.nbytes


def kept_bytes(side, chunk):
    _, baked, grid, cameras = scene(torch.float32)
    kept = Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor):
        options = {} if chunk is None else {"rays_per_chunk": chunk}
        method = render_with_graph if chunk is None else render_deferred
        views = method(
            baked,
            grid,
            cameras,
            side,
            n_samples=8,
            background=torch.ones(8, 3),
            shader=None,
            generator=torch.Generator().manual_seed(1),
            **options,
        )
        views.backward(torch.ones_like(views.rgb), RegularizerWeights(entropy=1.0))
    return kept.most


def test_memory_is_that_of_a_chunk():
    assert kept_bytes(96, 256) < 1.01 * kept_bytes(32, 256)  # 9 times the rays
    assert kept_bytes(96, None) > 100 * kept_bytes(96, 256)


def test_a_view_of_nothing():
    field, baked, grid, cameras = scene()
    grid.occupied.zero_()
    views = render_deferred(
        baked,
        grid,
        cameras,
        4,
        n_samples=3,
        background=torch.ones(8, 3).double(),
        shader=None,
        generator=torch.Generator().manual_seed(0),
        rays_per_chunk=20,
    )
    assert views.n_active_rays == 0
    views.backward(torch.ones_like(views.rgb), RegularizerWeights())
    assert all(level.grad is None or not level.grad.any() for level in field.levels)
