"""Ray casting against a second route: marching along each ray through the solids' inside tests."""

import json
import math

import numpy as np
import pytest
import torch

from vlmreward_3d.blocks.world.raycast import CHANNELS, raycast
from vlmreward_3d.blocks.world.scenes import (
    COMPOUNDS,
    SHAPES,
    Scene,
    SceneObject,
    arrange,
    sample_scene,
)
from vlmreward_3d.blocks.world.solids import FRONT, solids
from vlmreward_3d.cameras import orbit


def inside(prim, points):
    local = (points - np.array(prim.center)) @ np.array(prim.rotation) / np.array(prim.scale)
    x, y, z = local.T
    if prim.kind == "sphere":
        return x**2 + y**2 + z**2 <= 1
    if prim.kind == "cube":
        return (abs(x) <= 1) & (abs(y) <= 1) & (abs(z) <= 1)
    if prim.kind == "cylinder":
        return (x**2 + y**2 <= 1) & (abs(z) <= 1)
    if prim.kind == "cone":
        radius = 1 - (1 - prim.param) * (z + 1) / 2
        return (abs(z) <= 1) & (x**2 + y**2 <= radius**2)
    return (np.sqrt(x**2 + y**2) - 1) ** 2 + z**2 <= prim.param**2


@pytest.mark.parametrize("shape", SHAPES)
def test_silhouette_and_owner_equal_marching(shape):
    rng = np.random.default_rng(5)
    things = [SceneObject(shape, "red", 0.35, yaw=0.7), SceneObject("cube", "blue", 0.3)]
    scene = Scene(arrange(things, "on top of", rng), "on top of")
    angle = torch.tensor([25.0, 115.0], dtype=torch.float64)
    cameras = orbit(angle, 0 * angle + 30, 0 * angle + 2.5, 0 * angle + 40)
    views = raycast(scene, cameras, 24, supersample=1)
    origins, directions = (x.reshape(-1, 3).numpy() for x in cameras.rays(24, 24))
    first = np.full(len(origins), -1)
    for t in np.arange(1.2, 3.8, 0.004):
        points = origins + t * directions
        for prim in solids(scene):
            hit = (first < 0) & inside(prim, points)
            first[hit] = prim.owner
    cast = np.where(
        views.rgba[..., 3].flatten() > 0, views.coverage[..., 1].flatten() > 0, -1
    ).astype(int)
    # rays that graze an edge may differ
    assert (cast == first).mean() > 0.99
    assert {-1, 0, 1} == set(cast.tolist())


def test_a_sphere_covers_the_area_that_perspective_gives_it():
    scene = Scene((SceneObject("sphere", "green", 0.5 / 0.92),))
    zero = torch.zeros(1)
    cameras = orbit(zero, zero, zero + 3.0, zero + 34)
    covered = raycast(scene, cameras, 128).rgba[..., 3].mean().item()
    radius = (
        0.5 / math.sqrt(3.0**2 - 0.5**2) / math.tan(math.radians(17))
    )  # of the disc, half image = 1
    assert covered == pytest.approx(math.pi * radius**2 / 4, rel=5e-3)


def test_surfaces_are_lit_by_lamberts_law():
    scene = Scene((SceneObject("cube", "blue", 0.5),))
    zero = torch.zeros(1)
    cameras = orbit(zero, zero + 89.9, zero + 3.0, zero + 17)
    color = raycast(scene, cameras, 33).rgba[0, 16, 16, :3]
    (prim,) = solids(scene)
    light = torch.nn.functional.normalize(torch.tensor([0.38, 0.27, 0.88]), dim=0)
    expected = torch.tensor(prim.color) * (0.5 + 0.5 * light[2])
    torch.testing.assert_close(color, expected, atol=1e-4, rtol=0)


def test_holes_show_the_inside():
    thing = SceneObject("sphere", "red", 0.6)
    scene = Scene((thing,), flaw="holes", holes=((0.55, 0.0, 0.0, 0.4),))
    zero = torch.zeros(2)
    cameras = orbit(torch.tensor([0.0, 180.0]), zero, zero + 3.0, zero + 34)
    views = raycast(scene, cameras, 32)
    assert views.coverage[0, 16, 16, CHANNELS.index("broken")] == 1
    assert views.coverage[1, ..., CHANNELS.index("broken")].max() == 0


@pytest.mark.parametrize("shape", COMPOUNDS)
def test_fronts_are_turned_copies_of_one(shape):
    def parts(*fronts, yaw=0.0):
        made = solids(Scene((SceneObject(shape, "red", 0.6, yaw, fronts=fronts),)))
        return {role: [p for p in made if (p.role == FRONT) == role] for role in (True, False)}

    one, none, three = parts(0.0), parts(), parts(0.0, math.pi / 2, math.pi)
    assert not none[True]
    assert len(three[True]) == 3 * len(one[True]) > 0
    assert len(three[False]) == len(none[False]) == len(one[False])
    # a front at an angle is where the one front of a turned object is
    turned = parts(0.0, yaw=math.pi / 2)[True]
    aside = parts(math.pi / 2)[True]
    for a, b in zip(turned, aside, strict=True):
        assert a.center == pytest.approx(b.center, abs=1e-9)
        assert np.allclose(a.rotation, b.rotation)


def test_flawed_fronts_are_several_or_none():
    rng = np.random.default_rng(3)
    counts = {"faces": set(), "no front": set(), None: set()}
    for flaw, seen in counts.items():
        for _ in range(60):
            scene = sample_scene(rng, flaw=flaw)
            things = [t for t in scene.things if t.shape in COMPOUNDS]
            assert things or flaw is None
            seen |= {len(t.fronts) for t in things}
            assert all(t.fronts == (0.0, math.pi) for t in things if t.shape == "car") or (
                flaw != "faces"
            )
            assert len(scene.things) == 1 or flaw != "no front"
            assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
    assert counts == {"faces": {2, 3, 4}, "no front": {0}, None: {1}}
