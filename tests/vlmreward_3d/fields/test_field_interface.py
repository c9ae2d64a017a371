"""Every field behind one interface, and a field of the user's own."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, redness, shrink_exports, tiny
from torch import nn

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import FieldConfig, VLM3DConfig
from vlmreward_3d.export.geometry import Geometry, export_geometry
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.fields import DenseGrid, Field, VolumeField, build_field
from vlmreward_3d.rendering import OccupancyGrid, RegularizerWeights, Views

FIELDS = {
    "pyramid": {"field": "dense_grid"},
    "chunks": {"field": "dense_grid", "field.rays.rays_per_chunk": 100},
    "hash": {
        "field": "hash_grid",
        "field.levels": 2,
        "field.resolution_range": (4, 8),
        "field.table_size": 64,
    },
    "splats": {"field": "gaussians", "field.n_gaussians": 40},
}


@pytest.fixture(params=FIELDS)
def field(request) -> Field:
    return build_field(tiny(**FIELDS[request.param]).field, torch.Generator().manual_seed(0))


def test_views_carry_a_gradient_at_the_pixels_to_the_parameters(field):
    generator = torch.Generator().manual_seed(1)
    cameras = Cameras.turntable(3)
    views = field.render(cameras, 10, background=torch.rand(3, 3), generator=generator)
    assert views.rgb.shape == (3, 3, 10, 10)
    assert views.opacity.shape == (3, 1, 10, 10)
    assert not views.rgb.requires_grad
    assert views.n_active_rays > 0
    gradient = torch.randn(views.rgb.shape, generator=generator)
    found = []
    for retain_graph in (True, False):
        field.zero_grad()
        views.backward(gradient, RegularizerWeights(entropy=1.0), retain_graph=retain_graph)
        found.append([p.grad.clone() for p in field.parameters() if p.grad is not None])
    assert found[0]
    assert any(g.abs().max() > 0 for g in found[0])
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_images_are_rendered_without_a_graph(field):
    cameras = Cameras.turntable(2)
    images = list(field.render_images(cameras, 12, normals=True))
    assert [image.shape for image in images] == [(3, 24, 12)] * 2
    for image, plain in zip(images, field.render_images(cameras, 12)):
        assert not image.requires_grad
        assert 0 <= image.min() <= image.max() <= 1
        torch.testing.assert_close(image[:, :12], plain, atol=1e-6, rtol=0)


def test_the_groups_hold_every_parameter_once(field):
    grouped = [id(p) for group, _ in field.parameter_groups() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in field.parameters())


def test_evaluation_leaves_the_field_as_it_is(field):
    before = copy.deepcopy(field.state_dict())
    other = field.for_evaluation()
    for ours, theirs in zip(field.parameters(), other.parameters()):
        assert ours is theirs
    for name, value in field.state_dict().items():
        assert torch.equal(value, before[name])
    assert other.occupancy_fraction <= field.occupancy_fraction == 1


def test_the_occupancy_is_updated_at_every_few_steps_and_for_evaluation():
    field = build_field(tiny(field__occupancy__interval=3).field)
    assert field.for_evaluation().occupancy_fraction < 1
    for step in range(7):
        generator = torch.Generator().manual_seed(step)
        before = generator.get_state()
        field.begin_step(step, generator)
        assert torch.equal(generator.get_state(), before) == bool(step % 3)
    assert field.occupancy_fraction < 1


def test_a_volume_and_its_occupancy_share_one_box():
    with pytest.raises(ValueError, match=r"bound=1\.0 and an occupancy grid with bound=2\.0"):
        VolumeField(DenseGrid((4,), bound=1.0), OccupancyGrid(4, bound=2.0))


def test_gaussians_refuse_a_shader_and_an_orientation_loss():
    field = build_field(tiny(**FIELDS["splats"]).field)
    options = {"background": torch.ones(1, 3), "generator": torch.Generator()}
    for asked in ({"normals": True}, {"shader": lambda samples, points, views: samples.rgb}):
        with pytest.raises(ValueError, match="expected neither"):
            field.render(Cameras.turntable(1), 4, **options, **asked)


class Backdrop(Field):
    """One color everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.zeros(3))

    def parameter_groups(self):
        return [([self.color], 1.0)]

    def render(self, cameras, resolution, *, background, generator, shader=None, normals=False):
        shape = len(cameras), 3, resolution, resolution
        rgb = self.color.sigmoid()[:, None, None].expand(shape)

        def backward(gradient, regularizers, *, retain_graph=False):
            (rgb * gradient).sum().backward(retain_graph=retain_graph)

        return Views(rgb.detach(), torch.ones_like(rgb[:, :1]), rgb[:, 0].numel(), backward)

    @torch.no_grad()
    def render_images(self, cameras, size, *, normals=False, n_samples=None):
        for _ in range(len(cameras)):
            yield self.color.sigmoid()[:, None, None].expand(3, (1 + normals) * size, size)


@dataclass(frozen=True, kw_only=True)
class BackdropConfig(FieldConfig):
    kind: ClassVar[str] = "backdrop"


@build_field.register
def _(config: BackdropConfig, generator=None):
    return Backdrop()


def test_a_field_of_ones_own_trains_resumes_and_is_exported(monkeypatch, tmp_path):
    shrink_exports(monkeypatch)
    config = dataclasses.replace(tiny(), field=BackdropConfig())
    assert VLM3DConfig.from_json(config.to_json()) == config
    model, other = (build_vlm3d(config, RandomDenoiser(), redness) for _ in range(2))
    reports = [model.step() for _ in range(3)]
    assert model.field.color.detach().abs().min() > 0
    other.load_state(model.state())
    assert model.step() == other.step()
    assert torch.equal(model.field.color, other.field.color)

    (tmp_path / "plain").mkdir()
    files = export_all(tmp_path / "plain", model, reports)
    assert {"views.png", "report.html"} <= {file.name for file in files}
    assert "a Backdrop has no exporter" in (tmp_path / "plain" / "report.html").read_text()


def test_an_exporter_is_registered_for_a_class_of_fields(tmp_path):
    class Painted(Backdrop):
        pass

    @export_geometry.register
    def _(field: Painted, directory, kinds=()):
        path = directory / "color.txt"
        path.write_text("gray")
        return Geometry((path,))

    assert export_geometry(Painted(), tmp_path).files == (tmp_path / "color.txt",)
    assert export_geometry(Backdrop(), tmp_path).files == ()
