"""Exported files, opened again by other programs' readers."""

import math

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from exported_meshes import read_mesh, solid, srgb_colors, tower
from stub_models import RandomDenoiser, build_vlm3d, redness, shrink_exports, tiny

from vlmreward_3d.cameras import orbit
from vlmreward_3d.export import run_artifacts as export
from vlmreward_3d.export.mesh.marching_cubes import extract_surface
from vlmreward_3d.export.mesh.writers import MESH_FILES, save_glb, save_meshes
from vlmreward_3d.export.run_artifacts import export_all, save_curves, save_turntable, save_views
from vlmreward_3d.guidance.view_prompts import VIEWS, view_index
from vlmreward_3d.rendering.evaluation import render_volume_images
from vlmreward_3d.vlm3d import StepReport


def test_the_mesh_is_closed_colored_y_up_and_of_the_right_size(tmp_path):
    save_glb(tmp_path / "mesh.glb", extract_surface(tower()))
    mesh = read_mesh(tmp_path / "mesh.glb")
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert len(mesh.split()) == 1  # the hollow that nothing sees is filled
    ball = 4 / 3 * math.pi * 0.3**3
    assert 0.7 * ball < mesh.volume < 1.2 * ball
    assert np.allclose(mesh.centroid, (0, 0.3, 0), atol=0.02)  # z became y
    rgb = srgb_colors(tmp_path / "mesh.glb")
    front = mesh.vertices[:, 2] > 0.1
    behind = mesh.vertices[:, 2] < -0.1
    assert (rgb[front, 0] > 200).all()
    assert (rgb[front, 2] < 50).all()
    assert (rgb[behind, 2] > 200).all()


@pytest.mark.parametrize(
    ("azimuth", "expected"), [(0.0, (0, 0, 0.4)), (90.0, (0.4, 0, 0)), (180.0, (0, 0, -0.4))]
)
def test_the_front_faces_z_as_in_gltf(azimuth, expected, tmp_path):
    """The camera at azimuth 0 looks at the front, that at 90 degrees at the object's left."""
    place = 0.4 * torch.nn.functional.normalize(orbit(azimuth, 0.0, 3.0, 40.0).positions[0], dim=0)

    def inside(x, y, z):
        x0, y0, z0 = place.tolist()
        return 0.25 - ((x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2).sqrt()

    field = solid(inside, lambda x, y, z: (0 * x, 0 * y, 0 * z))
    surface = extract_surface(field, resolution=48)
    for path in save_meshes(tmp_path, surface, field, tuple(MESH_FILES), texture_resolution=64):
        mesh = read_mesh(path)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        assert np.allclose(mesh.centroid, expected, atol=0.02)
        assert mesh.volume > 0.03  # neither mirrored nor turned inside out


def test_azimuth_0_is_what_prompts_call_the_front():
    assert VIEWS[view_index(orbit(torch.zeros(1), 0.0, 3.0, 40.0))[0]] == "front"


def test_a_field_without_a_surface_is_refused():
    nothing = solid(lambda x, y, z: 0 * x - 1, lambda x, y, z: (0 * x, 0 * x, 0 * x))
    with pytest.raises(ValueError, match="without a surface"):
        extract_surface(nothing)


def test_views_show_colors_above_and_normals_below(tmp_path):
    cameras = orbit(torch.tensor([0.0, 180.0]), 0.0, 3.0, 40.0)
    save_views(tmp_path / "views.png", tower(), cameras, 64)
    image = iio.imread(tmp_path / "views.png").astype(float) / 255
    assert image.shape == (128, 128, 3)
    # the ball's center is 0.3 above the image's, which is 64 px over 2 * 3 * tan 20
    row = round(32 - 0.3 * 64 / (6 * math.tan(math.radians(20))))
    assert np.allclose(image[row, 32], (1, 0, 0), atol=0.05)
    assert np.allclose(image[row, 96], (0, 0, 1), atol=0.05)
    assert np.allclose(image[64 + row, 32], (1, 0.5, 0.5), atol=0.1)
    assert np.allclose(image[64 + row, 96], (0, 0.5, 0.5), atol=0.1)
    assert np.allclose(image[60, 32], 1)
    assert np.allclose(image[124, 32], 1)


def test_chunks_change_nothing():
    field = tower()
    scene = field.representation.bake(), field.occupancy, orbit(20.0, 10.0, 3.0, 40.0), 24
    whole = next(render_volume_images(*scene))
    parts = next(render_volume_images(*scene, chunk=50))
    torch.testing.assert_close(whole, parts)


def test_the_turntable_plays(tmp_path):
    cameras = orbit(torch.arange(5) * 72.0, 0.0, 3.0, 40.0)
    path = save_turntable(tmp_path, tower(), cameras, size=48)
    assert path.name == "turntable.mp4"
    frames = iio.imread(path)
    assert frames.shape == (5, 48, 48, 3)
    # red in front, blue behind
    assert frames[0, :, :, 0].astype(int).sum() > frames[0, :, :, 2].astype(int).sum() + 5000
    assert frames[2, :, :, 2].astype(int).sum() > frames[2, :, :, 0].astype(int).sum() + 5000


def test_a_coarse_field_is_enlarged_to_the_size_that_was_asked_for(tmp_path):
    """The tower has 64 nodes a side, and 171 pixels show all of them."""
    path = save_turntable(tmp_path, tower(), orbit(0.0, 0.0, 3.0, 40.0), size=256)
    shown = iio.imread(path)[0].astype(float)
    assert shown.shape == (256, 256, 3)
    fine = (
        next(tower().render_images(orbit(0.0, 0.0, 3.0, 40.0), 256)).permute(1, 2, 0).numpy() * 255
    )
    assert np.abs(shown - fine).mean() < 2


def test_without_an_encoder_the_turntable_is_a_gif(tmp_path, monkeypatch):
    def missing(*_):
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(export, "_write_mp4", missing)
    cameras = orbit(torch.arange(4) * 90.0, 0.0, 3.0, 40.0)
    path = save_turntable(tmp_path, tower(), cameras, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["turntable.gif"]
    assert iio.imread(path).shape == (4, 32, 32, 3)


def test_curves_are_drawn_with_and_without_a_reward(tmp_path):
    sds = {"sds/loss": 2.0, "sds/weight": 1.0, "field/opacity": 0.3}
    vlm = {"vlm/prob_yes": 0.27, "vlm/grad_norm": 1.0}
    reports = [StepReport(i, sds | vlm | {"vlm/reward": i - 1.0}) for i in range(4)]
    save_curves(tmp_path / "with.png", reports, "a red cube")
    bare = [StepReport(i, sds) for i in range(4)]
    save_curves(tmp_path / "without.png", bare, "a red cube")
    save_curves(tmp_path / "none.png", [], "a red cube")
    pictures = [iio.imread(p) for p in sorted(tmp_path.glob("*.png"))]
    assert all(p.shape == pictures[0].shape for p in pictures)
    assert not np.array_equal(pictures[1], pictures[2])


def test_a_field_without_a_surface_has_its_pictures_and_a_report(tmp_path, monkeypatch):
    shrink_exports(monkeypatch)
    model = build_vlm3d(tiny(), RandomDenoiser(), redness)
    report = model.step()
    with torch.no_grad():
        model.field.representation.levels[0][:, :1] -= 100
    files = export_all(tmp_path, model, [report], notes=["step 3: back"])
    assert not any("mesh" in file.name for file in files)
    page = (tmp_path / "report.html").read_text()
    assert "The field has no surface, so that there is no mesh to turn" in page
    assert "<li>step 3: back</li><li>no mesh: received a field without a surface" in page
    assert "<canvas" not in page


def test_everything_is_exported_and_the_model_left_alone(tmp_path, monkeypatch):
    shrink_exports(monkeypatch)
    model = build_vlm3d(tiny(), RandomDenoiser(), redness)
    report = model.step()
    before = model.state()
    files = export_all(tmp_path, model, [report])
    names = [
        "views.png",
        "turntable.mp4",
        "mesh.glb",
        "mesh_textured.glb",
        "reward.png",
        "report.html",
    ]
    assert [p.name for p in files] == names
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    for name, value in model.state().items():
        assert torch.equal(value, before[name])
