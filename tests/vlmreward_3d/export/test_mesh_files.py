"""Mesh files, opened again by trimesh, and the texture against the field it was baked from."""

from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from exported_meshes import read_glb, solid, srgb_colors, tower

from vlmreward_3d.export.mesh.marching_cubes import Surface, colors_at, extract_surface
from vlmreward_3d.export.mesh.texture import bake_texture
from vlmreward_3d.export.mesh.uv_atlas import unwrap
from vlmreward_3d.export.mesh.uv_raster import rasterize
from vlmreward_3d.export.mesh.writers import MESH_FILES, save_meshes


def soft_colors():
    """A ball whose colors vary slowly, different in every direction."""
    return solid(
        lambda x, y, z: 0.5 - (x * x + y * y + z * z).sqrt(), lambda x, y, z: (4 * x, 4 * y, 4 * z)
    )


@pytest.fixture(scope="module")
def ball():
    field = soft_colors()
    surface = extract_surface(field, resolution=48)
    colors = partial(colors_at, field)
    return field, surface, bake_texture(surface, colors, resolution=512)


def spiral_stair() -> tuple[np.ndarray, np.ndarray]:
    """A ramp of two turns, all of which looks upwards."""
    angle = np.linspace(0, 4 * np.pi, 80)
    height = 0.1 * angle
    rim = [np.stack([r * np.cos(angle), r * np.sin(angle), height], axis=1) for r in (0.5, 1.0)]
    inner = np.arange(79)
    outer = inner + 80
    faces = np.concatenate(
        [
            np.stack([inner, outer, outer + 1], axis=1),
            np.stack([inner, outer + 1, inner + 1], axis=1),
        ]
    )
    return np.concatenate(rim), faces


def sampled(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear lookup (P, 3) as a renderer does it, float, in [0, 255]."""
    image = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
    at = torch.from_numpy(uv * (2, -2) + (-1, 1)).float()[None, None]
    found = torch.nn.functional.grid_sample(image, at, align_corners=False, padding_mode="border")
    return found[0, :, 0].T.numpy()


@pytest.mark.parametrize("where", [(1 / 3, 1 / 3, 1 / 3), (1, 0, 0), (0.5, 0.5, 0)])
def test_a_look_up_on_faces_edges_and_corners_gives_the_fields_color(ball, where):
    """On seams, too, where the other side of the edge is somewhere else in the picture."""
    field, _, textured = ball
    faces = textured.atlas.faces
    points = np.einsum("k,fkc->fc", where, textured.vertices[faces])
    uv = np.einsum("k,fkc->fc", where, textured.uv[faces])
    expected = 255 * colors_at(field, points)
    assert np.ptp(expected, axis=0).min() > 150
    # half a level of rounding, and a neighboring texel at the border of a chart
    assert np.abs(sampled(textured.picture, uv) - expected).max() < 3


def test_uvs_lie_inside_and_every_face_keeps_its_corners(ball):
    _, surface, textured = ball
    assert textured.uv.min() >= 0
    assert textured.uv.max() <= 1
    torch.testing.assert_close(
        textured.vertices[textured.atlas.faces], surface.vertices[surface.faces]
    )


def owners(atlas) -> np.ndarray:
    """(H, W) the chart of each texel, -1 outside."""
    texels = rasterize(atlas.pixels[atlas.faces], atlas.width, atlas.height)
    owner = np.full((atlas.height, atlas.width), -1)
    owner[texels.rows, texels.columns] = atlas.charts[texels.triangles]
    return owner


def times_covered(atlas) -> np.ndarray:
    texels = rasterize(atlas.pixels[atlas.faces], atlas.width, atlas.height)
    return np.bincount(texels.rows * atlas.width + texels.columns)


def test_charts_do_not_overlap_and_keep_their_distance(ball):
    atlas = ball[2].atlas
    assert times_covered(atlas).max() == 1
    assert 5 < atlas.charts.max() < 100
    owner = owners(atlas)
    for shift in (1, 2, 3, 4):
        for axis in (0, 1):
            one = np.moveaxis(owner, axis, 0)[:-shift]
            other = np.moveaxis(owner, axis, 0)[shift:]
            assert ((one == other) | (one < 0) | (other < 0)).all()


def test_what_passes_over_itself_is_cut():
    vertices, faces = spiral_stair()
    atlas = unwrap(vertices, faces, resolution=256)
    assert times_covered(atlas).max() == 1
    assert len(np.unique(atlas.charts)) > 1
    # all of the ramp is there: its texels are as many as its area in them
    one, other = (atlas.pixels[atlas.faces[:, k]] - atlas.pixels[atlas.faces[:, 0]] for k in (1, 2))
    area = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]).sum() / 2
    assert area > 256 * 256 / 2
    assert abs((owners(atlas) >= 0).sum() / area - 1) < 0.01


def test_a_texel_belongs_to_the_triangle_around_its_center():
    corners = np.array([[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [[4.0, 4.0], [4.0, 3.2], [3.2, 4.0]]])
    texels = rasterize(corners, 4, 4)
    found = set(zip(texels.columns, texels.rows, texels.triangles))
    first = {(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)}
    # the centers on the hypotenuse are on neither side of it; (3.5, 3.5) is outside the second
    assert found == {(x, y, 0) for x, y in first}
    centers = np.einsum("pk,pkc->pc", texels.weights, corners[texels.triangles])
    expected = np.stack([texels.columns, texels.rows], axis=1) + 0.5
    torch.testing.assert_close(centers, expected)


def save_everything(path):
    field = tower()
    surface = extract_surface(field, resolution=48)
    return save_meshes(path, surface, field, tuple(MESH_FILES), texture_resolution=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("meshes")
    written = save_everything(path)
    assert [p.name for p in written] == list(MESH_FILES.values())
    return path


@pytest.mark.parametrize("kind", ["obj", "ply", "glb"])
def test_the_same_surface_with_its_colors_is_in_every_format(folder, kind):
    field = tower()
    surface: Surface = extract_surface(field, resolution=48)
    mesh = trimesh.load(folder / MESH_FILES[kind], force="mesh", process=False)
    assert mesh.faces.shape == surface.faces.shape
    assert np.array_equal(mesh.faces, surface.faces)
    back = mesh.vertices[:, [2, 0, 1]]
    assert np.allclose(back, surface.vertices, atol=1e-5)
    path = folder / MESH_FILES[kind]
    rgb = srgb_colors(path) if kind == "glb" else mesh.visual.vertex_colors[:, :3]
    assert surface.rgb.min() < 0.01  # 8 bits of a linear color would be off by 6 steps there
    assert np.abs(rgb - 255 * surface.rgb).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["mesh.glb", "mesh_textured.glb"])
def test_no_file_is_taken_for_polished_metal(folder, name):
    """Without a material, or without these factors, glTF's defaults are metal."""
    tree, _ = read_glb(folder / name)
    (primitive,) = tree["meshes"][0]["primitives"]
    surface = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (0.0, 1.0)
    assert surface["baseColorFactor"] == [1, 1, 1, 1]
    assert ("COLOR_0" in primitive["attributes"]) == (name == "mesh.glb")


def test_the_textured_file_has_a_rough_material_with_the_colors(folder):
    field = tower()
    surface = extract_surface(field, resolution=48)
    mesh = trimesh.load(folder / "mesh_textured.glb", force="mesh", process=False)
    assert len(mesh.faces) == len(surface.faces)
    material = mesh.visual.material
    assert material.metallicFactor == 0
    assert material.roughnessFactor == 1
    picture = material.baseColorTexture
    assert b'"image/png"' in (folder / "mesh_textured.glb").read_bytes()
    centers = mesh.vertices[mesh.faces].mean(axis=1)
    seen = sampled(np.asarray(picture.convert("RGB")), mesh.visual.uv[mesh.faces].mean(axis=1))
    expected = 255 * colors_at(field, centers[:, [2, 0, 1]])
    assert np.abs(seen - expected).max() < 12  # red turns blue within a few texels
    # the cuts leave the shading alone; a scene, because trimesh's single mesh forgets its normals
    (cut,) = trimesh.load(folder / "mesh_textured.glb", process=False).geometry.values()
    (whole,) = trimesh.load(folder / "mesh.glb", process=False).geometry.values()
    assert np.allclose(cut.vertex_normals[cut.faces], whole.vertex_normals[whole.faces], atol=1e-5)
    assert not np.allclose(whole.vertex_normals[whole.faces], whole.face_normals[:, None], atol=0.1)


def test_files_are_the_same_every_time(folder, tmp_path):
    for path in save_everything(tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_an_unknown_kind_is_refused_before_any_work(tmp_path, ball):
    field, surface, _ = ball
    with pytest.raises(ValueError, match="received the kind of mesh 'stl'"):
        save_meshes(tmp_path, surface, field, ["glb", "stl"])
    assert list(tmp_path.iterdir()) == []
