"""The pyramid field against functions it represents exactly."""

import math

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.fields.dense_grid import BakedDenseGrid, DenseGrid


def points(n: int, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=dtype) * 1.8 - 0.9


def test_starts_as_a_gray_ball():
    field = DenseGrid((4, 33), blob_density=10.0, blob_radius=0.5, density_scale=3.0)
    samples = field.bake()(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0, -1.0]]))
    expected = 3 * torch.nn.functional.softplus(torch.tensor([10.0, 0.0, -10.0]))
    assert_close(samples.density, expected)
    assert_close(samples.rgb, torch.full((3, 3), 0.5))
    assert samples.normals is None


def test_levels_add_up_to_a_linear_function_and_axes_are_x_y_z():
    field = DenseGrid((2, 3, 9), blob_density=0.0).double()
    with torch.no_grad():
        for level, share in zip(field.levels, (0.5, 0.3, 0.2)):
            axis = torch.linspace(-1, 1, level.shape[-1], dtype=torch.float64)
            z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
            level[0, 0] = share * (1 + 2 * x - 3 * y + 0.5 * z)
            level[0, 1] = share * x
            level[0, 2] = share * y
            level[0, 3] = share * z
    p = points(50)
    samples = field.bake(normals=True)(p)
    logit = 1 + p @ torch.tensor([2.0, -3.0, 0.5], dtype=torch.float64)
    assert_close(samples.density, torch.nn.functional.softplus(logit))
    assert_close(samples.rgb, p.sigmoid())
    downhill = torch.tensor([-2.0, 3.0, -0.5], dtype=torch.float64) / math.sqrt(13.25)
    inner = p.abs().amax(dim=1) < 0.7
    assert_close(samples.normals[inner], downhill.expand(int(inner.sum()), 3))
    assert_close(field.bake().density(p), samples.density)


def test_normals_of_a_ball_point_outwards():
    samples = DenseGrid((32,)).bake(normals=True)(points(200, torch.float32))
    radial = torch.nn.functional.normalize(points(200, torch.float32), dim=-1)
    assert (samples.normals * radial).sum(-1).median() > 0.99


def test_gradients_reach_every_level():
    generator = torch.Generator().manual_seed(1)
    levels = [torch.randn(1, 4, r, r, r, dtype=torch.float64, generator=generator) for r in (2, 3)]

    def outputs(*levels):
        field = DenseGrid((2, 3), density_scale=2.0)
        del field.levels
        field.levels = levels
        samples = field.bake(normals=True)(points(7))
        return samples.density, samples.rgb, samples.normals

    assert torch.autograd.gradcheck(outputs, [level.requires_grad_() for level in levels])


def test_no_points_are_fine_and_counts_need_not_divide():
    baked = DenseGrid((4,)).bake(normals=True)
    empty = baked(torch.zeros(0, 3))
    assert empty.density.shape == (0,)
    assert empty.normals.shape == (0, 3)
    p = points(7, torch.float32)
    assert_close(baked(p).density[:3], baked(p[:3]).density)


def test_the_number_of_threads_changes_nothing():
    p = points(1000, torch.float32)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        volume = torch.linspace(-1, 1, 4 * 8**3).view(1, 4, 8, 8, 8).sin().requires_grad_()
        samples = BakedDenseGrid(volume, 1.0, 1.0)(p)
        (samples.density.sum() + samples.rgb.sum()).backward()
        results.append(volume.grad)
    torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("resolutions", [(), (1, 4), (8, 4), (4, 4)])
def test_bad_resolutions_are_named(resolutions):
    with pytest.raises(ValueError, match="expected ascending integers"):
        DenseGrid(resolutions)
