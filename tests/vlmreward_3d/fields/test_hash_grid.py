"""The hash field against a slow one written down from the paper, and against what it can fit."""

import itertools
import math

import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, error_at_solids, redness, tiny
from torch.testing import assert_close

from vlmreward_3d import presets
from vlmreward_3d.fields import hash_grid as hash_field
from vlmreward_3d.fields.hash_grid import HashGrid
from vlmreward_3d.schedule import Schedule


def small(**changes) -> HashGrid:
    """Three levels, of which the last two do not fit their tables."""
    options = {"levels": 3, "coarsest": 4, "finest": 16, "size": 64, "width": 8} | changes
    field = HashGrid(**options, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for table in field.tables:
            table.normal_(generator=torch.Generator().manual_seed(1))
    return field.double()


def points(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1


def slow_features(field: HashGrid, point: torch.Tensor) -> torch.Tensor:
    """Instant-NGP, Section 3, for one point, with Python's own integers."""
    parts = []
    for table, resolution in zip(field.tables, field.resolutions):
        place = [(float(x) + 1) / 2 * (resolution - 1) for x in point]
        total = torch.zeros(table.shape[1], dtype=torch.float64)
        for offset in itertools.product((0, 1), repeat=3):
            node = [min(math.floor(p), resolution - 2) + o for p, o in zip(place, offset)]
            share = math.prod(1 - abs(p - n) for p, n in zip(place, node))
            if resolution**3 <= len(table):
                row = node[0] * resolution**2 + node[1] * resolution + node[2]
            else:
                mixed = node[0] ^ (node[1] * 2654435761) ^ (node[2] * 805459861)
                row = mixed % len(table)
            total = total + share * table[row]
        parts.append(total)
    return torch.cat(parts)


def test_features_equal_a_slow_reference_with_gradients():
    field = small()
    assert field.resolutions == (4, 8, 16)
    assert [len(table) for table in field.tables] == [64, 64, 64]
    p = torch.cat([points(40), torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, -1, 0]])]).double()
    ours = field.encode(p)
    theirs = torch.stack([slow_features(field, point) for point in p])
    assert_close(ours, theirs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)).double()
    tables = list(field.tables)
    found = torch.autograd.grad((ours * weights).sum(), tables)
    for ours_, theirs_ in zip(found, torch.autograd.grad((theirs * weights).sum(), tables)):
        assert_close(ours_, theirs_)


def test_gradients_of_density_color_and_normals():
    field = small(levels=2, finest=8)
    p = points(6)

    def outputs(*values):
        names = [name for name, _ in field.named_parameters()]
        said = torch.func.functional_call(
            Ask(field), dict(zip(("field." + n for n in names), values)), p
        )
        return said.density, said.rgb, said.normals

    assert torch.autograd.gradcheck(outputs, tuple(field.parameters()))


class Ask(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, p):
        return self.field.bake(normals=True)(p)


def test_starts_as_a_gray_ball():
    field = HashGrid(4, 4, 32, 2**10, density_scale=3.0, generator=torch.Generator().manual_seed(0))
    samples = field.bake(normals=True)(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0, -1.0]]))
    expected = 3 * torch.nn.functional.softplus(torch.tensor([10.0, 0.0, -10.0]))
    assert_close(samples.density, expected, rtol=1e-2, atol=1e-3)
    assert_close(samples.rgb, torch.full((3, 3), 0.5), atol=1e-3, rtol=0)
    outward = torch.tensor([[1.0, 0, 0], [0, 0, -1.0]])
    assert_close(samples.normals[1:], outward, atol=2e-2, rtol=0)
    assert_close(field.bake().density(torch.zeros(1, 3)), samples.density[:1])


def test_normals_point_downhill():
    field = small(finest=64, size=2**18)
    p = (0.9 * points(50)).requires_grad_()
    with torch.no_grad():
        normals = field.bake(normals=True)(p).normals
        step = 1e-6
        slope = torch.stack(
            [
                (field.logits(p + step * e)[:, 0] - field.logits(p - step * e)[:, 0]) / (2 * step)
                for e in torch.eye(3, dtype=p.dtype)
            ],
            dim=-1,
        )
    seen = slope.norm(dim=-1) > 1e-2
    assert seen.sum() > 40
    downhill = -torch.nn.functional.normalize(slope, dim=-1)
    assert_close(normals[seen], downhill[seen], atol=1e-5, rtol=0)


def test_normals_teach_tables_and_network():
    field = small()
    field.bake(normals=True)(points(30)).normals[:, 0].sum().backward()
    assert all(table.grad.abs().max() > 0 for table in field.tables)
    first, _, last = field.network
    assert first.weight.grad.abs().max() > 0
    assert last.weight.grad[0].abs().max() > 0
    assert not last.weight.grad[1:].any()  # the colors'


def test_many_points_say_the_same_as_few(monkeypatch):
    baked, p = small().bake(normals=True), points(50)
    whole = baked(p)
    monkeypatch.setattr(hash_field, "_at_once", lambda points: 7)
    parts = baked(p)
    for name in ("density", "rgb", "normals"):
        assert_close(getattr(parts, name), getattr(whole, name))


def test_slopes_come_with_the_same_features():
    field = small()
    assert_close(field.encode(points(30), slopes=True)[:, 0], field.encode(points(30)))
    empty = field.double().bake(normals=True)(points(0))
    assert empty.normals.shape == (0, 3)


@pytest.mark.parametrize(
    "bad", [{"levels": 1}, {"coarsest": 1}, {"coarsest": 32, "finest": 32}, {"size": 1000}]
)
def test_shapes_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="expected 2 levels or more"):
        HashGrid(**{"levels": 4, "coarsest": 4, "finest": 32, "size": 1024} | bad)


HASH = {
    "field": "hash_grid",
    "field.levels": 4,
    "field.resolution_range": (4, 32),
    "field.table_size": 2**12,
}


@pytest.mark.parametrize("reuse", [False, True])
def test_deferred_steps_equal_plain_ones(reuse):
    config = tiny(
        **HASH,
        field__orientation_weight=Schedule.constant(1.0),
        regularizers__sparsity_weight=Schedule.constant(0.1),
        vlm__weighting__interval=2,
        vlm__weighting__cache_gradient=reuse,
    )
    models = [
        build_vlm3d(config.replace({"field.rays.rays_per_chunk": chunk}), RandomDenoiser(), redness)
        for chunk in (None, 150)
    ]
    for model in models:
        model.field.double()
        model.step()
    for ours, theirs in zip(*(model.field.parameters() for model in models)):
        assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)
        assert ours.grad.abs().sum() > 0


def test_a_checkpoint_goes_on_exactly_and_the_network_learns_slower():
    whole = build_vlm3d(tiny(**HASH), RandomDenoiser(), redness)
    whole.step()
    again = build_vlm3d(tiny(**HASH), RandomDenoiser(), redness)
    again.load_state(whole.state())
    for _ in range(4):
        assert whole.step() == again.step()
    rates = [group["lr"] for group in whole.optimizer.param_groups]
    assert rates[1] == pytest.approx(0.1 * rates[0])


def test_it_learns_solids_from_an_oracle():
    """Score distillation towards true pictures ends with those pictures."""
    settings = {
        **HASH,
        "field.levels": 6,
        "field.resolution_range": (4, 48),
        "field.occupancy.resolution": 16,
    }
    rate = Schedule.constant(2e-2)
    assert (
        error_at_solids(
            **settings, steps=80, field__rays__samples_per_ray=24, optimizer__learning_rate=rate
        )
        < 0.15
    )


def test_total_variation_is_refused():
    with pytest.raises(ValueError, match=r"the setting 'field.tv_weight'; expected one of"):
        tiny(field="hash_grid", field__tv_weight=Schedule.constant(1.0))
    with pytest.raises(ValueError, match=r"field='mesh'; expected one of \('dense_grid', 'hash"):
        presets.blocks("a red cube", field="mesh")
