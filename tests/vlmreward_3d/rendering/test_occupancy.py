"""Samples in occupied space only, and all of it."""

import math

import torch
from torch.testing import assert_close

from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.ray_sampling import intersect_box, sample_rays


def along_x(n: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    origins = torch.tensor([[-3.0, 0.02, 0.02]]).expand(n, 3)
    return origins, torch.tensor([[1.0, 0, 0]]).expand(n, 3)


def occupy(grid: OccupancyGrid, low: float, high: float) -> None:
    """Fill the cells whose x lies in [low, high]."""
    edges = torch.linspace(-1, 1, grid.peak.shape[0] + 1)
    inside = (edges[:-1] >= low - 1e-6) & (edges[1:] <= high + 1e-6)
    grid.occupied[:] = inside[:, None, None]


def test_box_distances_are_exact_also_from_inside_and_beside():
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [-3, 5, 0], [3, 0, 0]])
    directions = torch.tensor([[1.0, 0, 0]]).expand(4, 3)
    near, far = intersect_box(origins, directions, -torch.ones(3), torch.ones(3))
    assert_close(near[:2], torch.tensor([2.0, 0.0]))
    assert_close(far[:2], torch.tensor([4.0, 1.0]))
    assert (near[2:] >= far[2:]).all()


def test_a_full_grid_gives_regular_samples_through_the_box():
    samples = sample_rays(OccupancyGrid(8), *along_x(), 4)
    assert_close(samples.middles, torch.tensor([[2.25, 2.75, 3.25, 3.75]]))
    assert_close(samples.lengths, torch.tensor([[0.5]]))


def test_samples_skip_the_gap_and_their_lengths_add_up_to_what_is_occupied():
    grid = OccupancyGrid(8)
    occupy(grid, -1.0, -0.5)
    first = grid.occupied.clone()
    occupy(grid, 0.25, 0.75)
    grid.occupied |= first
    samples = sample_rays(grid, *along_x(), 16, n_bins=56)
    x = samples.middles[0] - 3
    assert ((x < -0.5) | ((x > 0.25) & (x < 0.75))).all()
    assert (x < 0).sum() == 8
    assert_close(samples.lengths * 16, torch.tensor([[1.0]]))
    assert (x.diff() > 0).all()


def test_rays_past_everything_are_left_out():
    grid = OccupancyGrid(8)
    occupy(grid, 0.0, 0.25)
    origins = torch.tensor([[-3.0, 0, 0], [-3, 0, 0], [-0.5, -3, 0]])
    directions = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0]])
    assert sample_rays(grid, origins, directions, 4).rays.tolist() == [0]
    grid.occupied[:] = False
    assert len(sample_rays(grid, origins, directions, 4).rays) == 0


def test_jitter_stays_within_its_stratum_and_follows_the_generator():
    def draw(seed):
        return sample_rays(
            OccupancyGrid(8), *along_x(50), 4, generator=torch.Generator().manual_seed(seed)
        ).middles

    middles = draw(0)
    edges = torch.arange(2.0, 4.5, 0.5)
    assert ((middles >= edges[:-1]) & (middles <= edges[1:])).all()
    assert torch.equal(middles, draw(0))
    assert not torch.equal(middles, draw(1))
    assert middles.std(dim=0).min() > 0.1


def test_the_quadrature_is_unbiased():
    # the integral of x^2 from -1 to 1 is 2/3, and the middle rule alone would be off by 2/192
    generator = torch.Generator().manual_seed(0)
    samples = sample_rays(OccupancyGrid(8), *along_x(20000), 8, generator=generator)
    sums = ((samples.middles - 3).square() * samples.lengths).sum(dim=1)
    assert_close(sums.mean().item(), 2 / 3, atol=4 * (sums.std() / math.sqrt(20000)).item(), rtol=0)


def test_updates_find_a_ball_its_neighbors_and_nothing_else():
    def ball(points):
        return 100.0 * (points.norm(dim=-1) < 0.5)

    grid = OccupancyGrid(16)
    assert grid.occupied.all()
    for seed in range(3):
        grid.update(ball, torch.Generator().manual_seed(seed))
    inside = torch.tensor([[0.0, 0, 0], [0.45, 0, 0], [0, -0.45, 0]])
    assert grid.at(inside).all()
    assert grid.at(torch.tensor([[0.52, 0.0, 0.0]])).all()
    assert not grid.at(torch.tensor([[0.8, 0, 0], [0.5, 0.5, 0.5], [0, 0, -0.9]])).any()
    low, high = grid.extent()
    assert_close(low, -high)
    assert 0.5 < high[0] < 0.7


def test_what_disappears_is_forgotten_after_a_while():
    grid = OccupancyGrid(8, threshold=0.01, decay=0.5)
    grid.update(lambda points: torch.ones(len(points)))
    assert grid.occupied.all()
    for _ in range(3):
        grid.update(lambda points: torch.zeros(len(points)))
    assert grid.occupied.all()
    for _ in range(6):
        grid.update(lambda points: torch.zeros(len(points)))
    assert not grid.occupied.any()
    assert (grid.extent()[0] > grid.extent()[1]).all()
