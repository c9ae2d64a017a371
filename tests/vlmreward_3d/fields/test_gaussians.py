"""Splats against closed forms, a slow reference, gsplat's own projection, and what they can fit."""

import dataclasses
import math
import sys
import types

import numpy as np
import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, error_at_solids, redness, shrink_exports, tiny
from torch.testing import assert_close

from vlmreward_3d import presets
from vlmreward_3d.cameras import Cameras, orbit, sample_groups
from vlmreward_3d.config import GaussiansConfig, ShadingConfig
from vlmreward_3d.export.gaussian_ply import save_gaussians
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.rendering.base import RegularizerWeights
from vlmreward_3d.rendering.gaussians import rasterize_gsplat as splat_cuda
from vlmreward_3d.rendering.gaussians.primitives import Gaussians, rotations
from vlmreward_3d.rendering.gaussians.projection import intrinsics, project
from vlmreward_3d.rendering.gaussians.rasterize_torch import draw
from vlmreward_3d.rendering.gaussians.render import render_gaussian_views, render_gaussians
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training.tensorboard_logger import TensorBoardLogger
from vlmreward_3d.vlm3d import DivergenceError

SPLATS = {"field": "gaussians", "field.n_gaussians": 60}
BLACK = torch.zeros(3, dtype=torch.float64)


def gaussians(means, sizes, opacity, rgb) -> Gaussians:
    """Round ones, in float64."""
    means, sizes, opacity, rgb = (torch.tensor(x).double() for x in (means, sizes, opacity, rgb))
    turned = torch.tensor([[1.0, 0, 0, 0]]).double().expand(len(means), 4)
    return Gaussians(means, sizes[:, None].expand(-1, 3), turned, opacity, rgb)


def front(distance=2.0) -> Cameras:
    """A camera on the +x axis, with +y to the right of the picture and +z up."""
    return orbit(torch.zeros(1, dtype=torch.float64), 0.0, distance, 40.0)


def many(n=150, seed=0) -> Gaussians:
    """Long and round ones everywhere, before, in and behind the picture."""
    g = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Gaussians(
        means=numbers(n, 3),
        scales=(numbers(n, 3) - 2.5).exp(),
        quaternions=torch.nn.functional.normalize(numbers(n, 4), dim=-1),
        opacity=(2 * numbers(n)).sigmoid(),
        rgb=numbers(n, 3).sigmoid(),
    )


def ring(views=3) -> Cameras:
    g = torch.Generator().manual_seed(3)
    ranges = {"fov_deg": (40, 40), "elevation_deg": (20, 20), "object_radius": (0.8, 0.8)}
    return sample_groups(1, views, **ranges, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("opacity", [0.5, 0.9999])
def test_one_round_gaussian_seen_face_on(opacity):
    side, width, distance = 33, 4.0, 2.0
    camera = front(distance)
    focal = intrinsics(camera, side).item()
    size = math.sqrt(width**2 - 0.3) * distance / focal  # 4 pixels wide with the dilation
    seen = render_gaussians(
        gaussians([[0.0, 0, 0]], [size], [opacity], [[1.0, 0.5, 0.25]]),
        camera,
        side,
        side,
        background=BLACK,
    )
    middle = side // 2
    peak = min(opacity, 0.99)
    color = torch.tensor([1.0, 0.5, 0.25]).double()
    assert_close(seen.rgb[0, :, middle, middle], peak * color)
    one = min(opacity * math.exp(-0.5), 0.99)
    for row, column in ((0, 4), (0, -4), (4, 0), (-4, 0)):
        assert_close(seen.rgb[0, :, middle + row, middle + column], one * color)
    assert_close(seen.opacity[0, 0, middle, middle].item(), peak)
    reach = width * math.sqrt(2 * math.log(255 * opacity))
    line = seen.opacity[0, 0, middle, middle:]
    inside = math.floor(reach)
    assert line[inside] >= 1 / 255
    assert not line[inside + 1 :].any()


@pytest.mark.parametrize("red_first", [True, False])
def test_two_gaussians_in_both_orders(red_first):
    near, far = (0.5, -0.5) if red_first else (-0.5, 0.5)
    one = gaussians(
        [[near, 0, 0], [far, 0, 0]], [0.1, 0.2], [0.6, 0.7], [[1.0, 0, 0], [0.0, 0, 1.0]]
    )
    seen = render_gaussians(one, front(), 9, 9, background=torch.tensor([0.0, 1.0, 0.0]).double())
    red, blue = (0.6, 0.4 * 0.7) if red_first else (0.3 * 0.6, 0.7)
    expected = torch.tensor([red, 0.4 * 0.3, blue]).double()
    assert_close(seen.rgb[0, :, 4, 4], expected)


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
@pytest.mark.parametrize("size", [(24, 24), (24, 40), (31, 17)])
def test_pictures_are_where_rays_say(size, projection):
    """The cameras' own rays, which the sampled fields are rendered with, meet the centers."""
    height, width = size
    camera = orbit(torch.tensor([30.0]).double(), 20.0, 2.5, 40.0, projection=projection)
    origins, directions = (x.view(-1, 3) for x in camera.rays(height, width))
    for place in ([0.3, 0, 0], [0, 0.3, 0], [0, 0, 0.3], [0.1, -0.2, -0.3]):
        dot = gaussians([place], [1e-3], [0.9], [[1.0, 1.0, 1.0]])
        seen = render_gaussians(dot, camera, height, width, background=BLACK)
        at = seen.opacity[0, 0].argmax()
        toward = torch.tensor(place).double() - origins
        distance = torch.linalg.cross(toward, directions).norm(dim=-1)
        assert distance[at] == distance.min()


def slow(one: Gaussians, cameras, height, width, background, most=0.99):
    """All Gaussians at all pixels, with an inverse matrix and a loop from front to back."""
    seen = project(one, cameras, height, width)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).double()
    pictures, opacities = [], []
    for view in range(len(cameras)):
        rgb = torch.zeros(height, width, 3, dtype=torch.float64)
        light = torch.ones(height, width, dtype=torch.float64)
        local = (one.means - cameras.positions[view]) @ cameras.c2w[view, :3, :3]
        for i in (-local[:, 2]).argsort().tolist():
            if -local[i, 2] < 0.01:
                continue
            xx, xy, yy = seen.covariances[view, i]
            inverse = torch.stack([xx, xy, xy, yy]).view(2, 2).inverse()
            apart = pixels - seen.means[view, i]
            form = torch.einsum("hwi,ij,hwj->hw", apart, inverse, apart)
            alpha = (one.opacity[i] * (-0.5 * form).exp()).clamp_max(most)
            alpha = torch.where(alpha < 1 / 255, 0, alpha)
            rgb = rgb + (light * alpha)[..., None] * one.rgb[i]
            light = light * (1 - alpha)
        pictures.append((rgb + light[..., None] * background).permute(2, 0, 1))
        opacities.append(1 - light[None])
    return torch.stack(pictures), torch.stack(opacities)


@pytest.mark.parametrize(("tile", "chunk"), [(8, 2**18), (4, 1), (5, 700), (64, 2**18)])
def test_tiles_change_nothing(tile, chunk):
    one, cameras = many(), ring()
    leaves = [getattr(one, f.name).requires_grad_() for f in dataclasses.fields(one)]
    projection = project(one, cameras, 20, 26)
    assert (projection.extents < 0).any()  # some are behind the cameras or too faint
    sums, opacity = draw(
        projection, one.opacity, one.rgb.expand(3, -1, -1), 20, 26, tile=tile, chunk=chunk
    )
    rgb, expected = slow(one, cameras, 20, 26, BLACK)
    assert_close(sums, rgb, atol=1e-9, rtol=0)
    assert_close(opacity, expected, atol=1e-9, rtol=0)
    assert 0.2 < opacity.mean() < 0.99
    weights = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(1)).double()
    ours = torch.autograd.grad((sums * weights).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad((rgb * weights).sum(), leaves)
    for found, wanted in zip(ours, theirs):
        assert wanted.abs().max() > 1e-3
        assert_close(found, wanted, atol=1e-8, rtol=1e-6)


def test_float32_is_close_and_the_order_of_the_parameters_does_not_matter():
    one, cameras = many(), ring()
    rgb, _ = slow(one, cameras, 20, 26, torch.ones(3).double())
    shuffle = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    single = Gaussians(*(getattr(one, f.name).float()[shuffle] for f in dataclasses.fields(one)))
    seen = render_gaussians(single, cameras.to(torch.float32), 20, 26)
    assert seen.rgb.dtype == torch.float32
    # a contribution beside the cutoff may fall on either side of it
    assert (seen.rgb.double() - rgb).abs().max() < 2 / 255
    assert (seen.rgb.double() - rgb).abs().median() < 1e-6


def test_gradients():
    generator = torch.Generator().manual_seed(5)
    field = GaussianField(4, radius=0.3, generator=generator).double()
    with torch.no_grad():
        field.log_scales.add_(torch.randn(4, 3, generator=generator).double() * 0.3)
        field.quaternions.add_(torch.randn(4, 4, generator=generator).double() * 0.5)
        field.opacity_logits.add_(torch.randn(4, generator=generator).double() + 1)
    cameras = orbit(torch.tensor([10.0, 200.0]).double(), 25.0, 2.0, 40.0)
    names = [name for name, _ in field.named_parameters()]

    def pictures(*values):
        changed = {f"field.{name}": value for name, value in zip(names, values)}
        made = torch.func.functional_call(Ask(field), changed)
        seen = render_gaussians(made, cameras, 5, 6)
        return seen.rgb, seen.opacity

    assert torch.autograd.gradcheck(pictures, tuple(field.parameters()))


class Ask(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self):
        return self.field.gaussians()


def test_views_backward_is_that_of_pixels_and_penalties():
    field = GaussianField(30, generator=torch.Generator().manual_seed(0)).double()
    cameras, side = ring(2), 12
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).double()
    at = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2)).double()
    views = render_gaussian_views(field.gaussians(), cameras, side, background=background)
    assert not views.rgb.requires_grad
    assert not views.opacity.requires_grad
    assert views.n_active_rays == (views.opacity > 0).sum() < 2 * side * side
    views.backward(at, RegularizerWeights(), retain_graph=True)
    first = [p.grad.clone() for p in field.parameters()]
    field.zero_grad()
    views.backward(at, RegularizerWeights(entropy=2.0, sparsity=3.0))
    found = [p.grad for p in field.parameters()]

    seen = render_gaussians(field.gaussians(), cameras, side, side, background=background)
    p = seen.opacity.clamp(1e-3, 1 - 1e-3)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    sparsity = (seen.opacity.square() + 0.01).sqrt().mean()
    loss = (seen.rgb * at).sum()
    for expected, ours in (
        (torch.autograd.grad(loss, list(field.parameters()), retain_graph=True), first),
        (torch.autograd.grad(loss + 2 * entropy + 3 * sparsity, list(field.parameters())), found),
    ):
        for theirs, mine in zip(expected, ours):
            assert_close(mine, theirs)
    assert not torch.allclose(first[3], found[3])


def test_nothing_to_see():
    one = gaussians([[0.0, 0, 0], [5.0, 0, 0]], [0.1, 0.1], [0.003, 0.9], [[1.0, 0, 0]] * 2)
    one.means.requires_grad_()
    seen = render_gaussians(one, front(), 8, 8, normals=True)
    assert torch.equal(seen.rgb, torch.ones(1, 3, 8, 8).double())
    assert not seen.opacity.any()
    assert not seen.normals.any()
    model = build_vlm3d(tiny(**SPLATS), RandomDenoiser())
    with torch.no_grad():
        model.field.opacity_logits.fill_(-20)
    with pytest.raises(DivergenceError, match="became empty"):
        model.step()


def test_needles_keep_their_width_in_float32():
    """A covariance's determinant is not computed as the difference of its products."""
    needles = dataclasses.replace(many(), scales=torch.tensor([[1e-3, 300.0, 1e-3]]).double())
    single = Gaussians(*(getattr(needles, f.name).float() for f in dataclasses.fields(needles)))
    expected = project(needles, ring(), 20, 26)
    found = project(single, ring().to(torch.float32), 20, 26)
    assert_close(found.determinants.double(), expected.determinants, rtol=1e-3, atol=0)


def test_needles_and_the_invisible_have_finite_gradients():
    turned = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2, 0.4, 0.3]]), dim=-1)
    needles = Gaussians(
        means=torch.zeros(2, 3),
        scales=torch.tensor([[1e-3, 300.0, 1e-3], [0.1, 0.1, 0.1]]),
        quaternions=turned.repeat(2, 1),
        opacity=torch.tensor([0.5, 0.0]),
        rgb=torch.full((2, 3), 0.5),
    )
    leaves = [getattr(needles, f.name).requires_grad_() for f in dataclasses.fields(needles)]
    seen = render_gaussians(needles, front().to(torch.float32), 33, 33, background=BLACK.float())
    seen.rgb.sum().backward()
    assert seen.opacity[0, 0, 16, 16] == 0.5
    assert 25 < (seen.opacity > 0.1).sum() < 150  # a line, about two pixels wide
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_quaternions_are_rotations():
    quaternion = torch.nn.functional.normalize(torch.randn(5, 4).double(), dim=-1)
    matrices = rotations(quaternion)
    assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).double().expand(5, 3, 3))
    assert_close(torch.linalg.det(matrices), torch.ones(5).double())
    half = math.sqrt(0.5)
    about_z = rotations(torch.tensor([half, 0, 0, half]))
    assert_close(about_z @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1.0, 0]))


def test_normals_are_shortest_axes_towards_the_camera():
    flat = gaussians([[0.0, 0, 0]], [0.2], [0.9], [[0.5, 0.5, 0.5]])
    flat = dataclasses.replace(flat, scales=torch.tensor([[0.01, 0.2, 0.2]]).double())
    cameras = orbit(torch.tensor([20.0, 200.0]).double(), 0.0, 2.0, 40.0)
    seen = render_gaussians(flat, cameras, 9, 9, normals=True)
    assert_close(seen.normals[0, :, 4, 4], torch.tensor([1.0, 0, 0]).double())
    assert_close(seen.normals[1, :, 4, 4], torch.tensor([-1.0, 0, 0]).double())


def test_starts_as_a_gray_ball_without_gaps():
    field = GaussianField(500, radius=0.4, generator=torch.Generator().manual_seed(0))
    one = field.gaussians()
    distances = torch.cdist(one.means.double(), one.means.double())
    assert one.means.norm(dim=-1).max() <= 0.4
    assert 0.25 < one.means.norm(dim=-1).mean() < 0.35  # three quarters of the radius
    near = distances.sort(dim=-1).values[:, 1:4].square().mean(dim=-1).sqrt()
    assert_close(one.scales, near[:, None].expand(-1, 3).float(), rtol=1e-3, atol=1e-4)
    assert_close(one.opacity, torch.full((500,), 0.1))
    assert_close(one.rgb, torch.full((500, 3), 0.5), atol=0.15, rtol=0)
    again = GaussianField(500, radius=0.4, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(field.parameters(), again.parameters()))
    everything = [p for group, _ in field.parameter_groups() for p in group]
    assert {id(p) for p in everything} == {id(p) for p in field.parameters()}


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"count": 3}, "at least 4 Gaussians"), ({"radius": 0.0}, "radius is 0.0; expected a finite")],
)
def test_balls_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        GaussianField(**bad)


@pytest.mark.parametrize(
    ("projection", "model"), [("perspective", "pinhole"), ("orthographic", "ortho")]
)
def test_projection_agrees_with_that_of_gsplat(projection, model):
    from gsplat.cuda import _torch_impl as theirs

    one, cameras = many(), dataclasses.replace(ring(), projection=projection)
    view, matrix = splat_cuda.pinholes(cameras, 20, 26)
    covariances, _ = theirs._quat_scale_to_covar_preci(one.quaternions, one.scales, True, False)
    radii, means, depths, conics, _ = theirs._fully_fused_projection(
        one.means, covariances, view, matrix, 26, 20, camera_model=model
    )
    ours = project(one, cameras, 20, 26)
    drawn = ours.extents[..., 0] >= 0
    inside = (radii > 0).all(-1) & drawn
    assert inside.sum() > 100
    xx, xy, yy = ours.covariances.unbind(-1)
    assert_close(ours.determinants, xx * yy - xy * xy)
    inverse = torch.stack([yy, -xy, xx], dim=-1) / ours.determinants[..., None]
    assert_close(ours.means[inside], means[inside])
    assert_close(ours.depths[inside], depths[inside])
    assert_close(inverse[inside], conics[inside])
    assert (ours.extents[inside] <= radii[inside] + 1e-9).all()


@pytest.mark.parametrize(("most", "parts"), [(0.99, 2), (0.999, 1)])
def test_gsplat_is_asked_for_the_same_picture(monkeypatch, most, parts):
    """A stand-in that reads gsplat's documented arguments, in place of its CUDA kernels.

    Those limit alpha to 0.999 up to version 1.5, and to 0.99 after it; a Gaussian has one radius
    in a picture at first, and later one for each of its sides.
    """

    def rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options
    ):
        assert options == {"near_plane": 0.01, "packed": False, "camera_model": "pinhole"}
        down, forward = -viewmats[:, 1, :3], -viewmats[:, 2, :3]
        c2w = torch.eye(4).double().repeat(len(viewmats), 1, 1)
        c2w[:, :3, :3] = torch.stack([viewmats[:, 0, :3], down, forward], dim=-1)
        c2w[:, :3, 3] = -(viewmats[:, :3, :3].transpose(1, 2) @ viewmats[:, :3, 3:])[..., 0]
        assert torch.equal(Ks[:, :2, 2], torch.tensor([[width / 2, height / 2]] * 3).double())
        fov = 2 * torch.atan(height / 2 / Ks[:, 1, 1])
        assert torch.equal(Ks[:, 0, 0], Ks[:, 1, 1])
        one, seen_by = Gaussians(means, scales, quats, opacities, colors[0]), Cameras(c2w, fov)
        rgb, opacity = slow(one, seen_by, height, width, BLACK, most)
        return rgb.permute(0, 2, 3, 1), opacity.permute(0, 2, 3, 1), found(one, seen_by)

    def found(one, cameras):
        """Centers, inverse covariances and radii of each Gaussian in each picture, gsplat's output.

        A Gaussian that is not drawn has radius 0 and undefined other values.
        """
        there = project(one, cameras, 20, 26)
        xx, xy, yy = there.covariances.detach().unbind(-1)
        conics = torch.stack([yy, -xy, xx], dim=-1) / there.determinants.detach()[..., None]
        low, high = there.means - there.extents, there.means + there.extents
        size = torch.tensor([26, 20])
        inside = ((high > 0) & (low < size)).all(-1) & (there.extents[..., 0] >= 0)
        radii = (there.extents.ceil() * inside[..., None]).int()
        conics = torch.where(inside[..., None], conics, float("nan"))
        return {"means2d": there.means, "conics": conics, "radii": radii[..., :parts].squeeze(-1)}

    module = types.ModuleType("gsplat")
    module.rasterization = rasterization
    monkeypatch.setitem(sys.modules, "gsplat", module)
    field = GaussianField(150, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter, values in zip(field.parameters(), dataclasses.astuple(many())[:3]):
            parameter.copy_(values)
        field.log_scales.copy_(field.log_scales.log())
        field.opacity_logits.copy_(10 * torch.linspace(-1, 1, 150))
    one, cameras = field.gaussians(), ring()
    assert 0.9899 < one.opacity.max() <= 0.99
    expected = render_gaussians(one, cameras, 20, 26)
    monkeypatch.setattr(splat_cuda, "available", lambda device: True)
    seen = render_gaussians(one, cameras, 20, 26)
    assert_close(seen.rgb, expected.rgb, atol=1e-9, rtol=0)
    assert_close(seen.opacity, expected.opacity, atol=1e-9, rtol=0)
    assert torch.equal(seen.footprints.visible, expected.footprints.visible)
    assert 0 < seen.footprints.visible.double().mean() < 0.9
    assert_close(seen.footprints.radii, expected.footprints.radii)
    assert seen.footprints.gradient is None


def test_without_kernels_a_warning_says_so_once(monkeypatch, recwarn):
    splat_cuda._kernels.cache_clear()
    for name in ("gsplat", "gsplat.cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not splat_cuda.available(torch.device("cpu"))
    assert not recwarn
    assert not splat_cuda.available(torch.device("cuda"))
    assert not splat_cuda.available(torch.device("cuda"))
    assert len(recwarn) == 1
    assert "pip install 'vlmreward[splats]'" in str(recwarn[0].message)
    backend = types.ModuleType("gsplat.cuda._backend")
    for kernels in (None, object()):
        splat_cuda._kernels.cache_clear()
        backend._C = kernels
        monkeypatch.setitem(sys.modules, "gsplat", types.ModuleType("gsplat"))
        monkeypatch.setitem(sys.modules, "gsplat.cuda", types.ModuleType("gsplat.cuda"))
        monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", backend)
        assert splat_cuda.available(torch.device("cuda")) == (kernels is not None)
    assert len(recwarn) == 2
    assert "could not be built" in str(recwarn[1].message)
    splat_cuda._kernels.cache_clear()


def test_the_file_is_read_back(tmp_path):
    field = GaussianField(7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        field.quaternions.mul_(3).add_(0.3)
    save_gaussians(tmp_path / "splats.ply", field)
    assert [file.name for file in tmp_path.iterdir()] == ["splats.ply"]
    header, _, data = (tmp_path / "splats.ply").read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 7"]
    names = [line.removeprefix("property float ") for line in lines[3:]]
    rows = np.frombuffer(data, dtype=[(name, "<f4") for name in names])
    assert len(rows) == 7

    def columns(*names):
        return torch.from_numpy(np.stack([rows[name] for name in names], axis=-1))

    one = field.gaussians()
    assert_close(columns("x", "y", "z"), one.means)
    assert not columns("nx", "ny", "nz").any()
    color = 0.5 + 0.28209479177387814 * columns("f_dc_0", "f_dc_1", "f_dc_2")
    assert_close(color, one.rgb)
    assert_close(columns("opacity")[:, 0].sigmoid(), one.opacity)
    assert_close(columns("scale_0", "scale_1", "scale_2").exp(), one.scales)
    assert_close(columns("rot_0", "rot_1", "rot_2", "rot_3"), one.quaternions)
    assert rows.dtype.itemsize == 17 * 4


@pytest.mark.parametrize("reuse", [False, True])
def test_a_checkpoint_goes_on_exactly_and_centers_learn_slower(reuse):
    config = tiny(
        **SPLATS,
        vlm__weighting__interval=2,
        vlm__weighting__cache_gradient=reuse,
        regularizers__sparsity_weight=Schedule.constant(0.1),
    )
    whole = build_vlm3d(config, RandomDenoiser(), redness)
    before = [p.detach().clone() for p in whole.field.parameters()]
    whole.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, whole.field.parameters()))
    again = build_vlm3d(config, RandomDenoiser(), redness)
    again.load_state(whole.state())
    for _ in range(4):
        report = whole.step()
        assert report == again.step()
        assert report.metrics["field/occupancy_fraction"] == 1.0
    for ours, theirs in zip(whole.field.parameters(), again.field.parameters()):
        assert torch.equal(ours, theirs)
    rates = [group["lr"] for group in whole.optimizer.param_groups]
    assert rates[0] < rates[1] < rates[2] == config.optimizer.learning_rate(4 / config.steps)


def test_they_learn_solids_from_an_oracle():
    """Score distillation towards true pictures ends with those pictures."""
    rate = Schedule.constant(5e-2)
    assert (
        error_at_solids(
            field="gaussians", field__n_gaussians=800, steps=120, optimizer__learning_rate=rate
        )
        < 0.05
    )


def test_exports_and_previews(tmp_path, monkeypatch):
    shrink_exports(monkeypatch)
    model = build_vlm3d(tiny(**SPLATS), RandomDenoiser(), redness)
    reports = [model.step()]
    before = model.state()
    files = {path.name for path in export_all(tmp_path, model, reports)}
    assert files >= {"views.png", "splats.ply", "reward.png", "report.html"}
    assert not any(name.startswith("mesh") for name in files)
    assert all((tmp_path / name).exists() for name in files)
    page = (tmp_path / "report.html").read_text()
    assert "<canvas" not in page
    assert "open <code>splats.ply</code>" in page
    board = TensorBoardLogger(tmp_path, 0)
    board.show(model)
    board.close()
    assert (tmp_path / "preview.png").exists()
    after = model.state()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_picture_on_white_above_normals():
    model = build_vlm3d(tiny(**SPLATS), RandomDenoiser())
    picture = next(model.field.render_images(front(4.0).to(torch.float32), 24, normals=True))
    assert picture.shape == (3, 48, 24)
    assert (picture[:, ::47, ::23] == 1).all()
    for half in picture.split(24, dim=1):
        assert half[:, 12, 12].min() < 0.9


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("shading", ShadingConfig(probabilities=(0.2, 0.4, 0.4))),
        ("rays.rays_per_chunk", 100),
        ("orientation_weight", Schedule.constant(1.0)),
        ("tv_weight", Schedule.constant(1.0)),
    ],
)
def test_what_gaussians_cannot_do_is_no_setting(setting, value):
    with pytest.raises(ValueError, match=f"the setting 'field.{setting}'; expected one of"):
        tiny(field="gaussians", **{f"field.{setting}": value})


@pytest.mark.parametrize(("setting", "value"), [("n_gaussians", 3), ("radius", 0.0)])
def test_bad_settings_of_gaussians_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"received {setting}="):
        tiny(field="gaussians", **{f"field.{setting}": value})


OTHERS = {"dreamgaussian", "sjc", "latent_nerf"}
"""The preset of Gaussians itself, and those of latents, which Gaussians do not render."""


@pytest.mark.parametrize("name", sorted(presets.PRESETS.keys() - OTHERS))
def test_every_other_preset_can_have_gaussians(name):
    config = presets.PRESETS[name]("a red cube")
    changed = presets.PRESETS[name]("a red cube", field="gaussians")
    assert changed.field == GaussiansConfig(n_gaussians=2000, radius=config.field.blob_radius)
    assert dataclasses.replace(changed, field=config.field) == config
