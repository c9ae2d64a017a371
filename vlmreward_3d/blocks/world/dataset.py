"""Rendered sets of blocks scenes, made in shards by several processes; resumable."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from vlmreward_3d.blocks.world.compositions import sample_composition
from vlmreward_3d.blocks.world.mixtures import counterpart
from vlmreward_3d.blocks.world.raycast import CHANNELS, raycast
from vlmreward_3d.blocks.world.scenes import FLAWS, Scene, sample_scene
from vlmreward_3d.cameras import Cameras, sample_groups

VIEW_SIZE = 64
"""Height and width of the stored views, in pixels."""
N_GROUPS, RING = 2, 4
"""Every scene is seen by two independent rings of four cameras 90 degrees apart."""
CELL = 16
"""Side, in pixels, of the cells for which coverage is stored: one image token of the VLM."""
FOV_DEG, ELEVATION_DEG, CAMERA_SCALE = (30.0, 45.0), (5.0, 40.0), (0.8, 1.0)
"""Ranges of the cameras of the blocks world."""
SHARD = 250
COUNTERPARTS = 2
"""Version of `mixtures.counterpart`, which identifies sets made by another version."""


@dataclass(frozen=True)
class BlocksData:
    """A rendered set of N scenes.

    Attributes:
        scenes: the N scenes.
        rgba: (N, 8, 64, 64, 4) uint8, premultiplied color; views 0-3 and 4-7 are rings.
        coverage: (N, 8, 4, 4, 6) uint8, 255 = fully covered; see ``raycast.CHANNELS``.
        cameras: (N, 8, 16) float32 camera conditions.
    """

    scenes: list[Scene]
    rgba: Tensor
    coverage: Tensor
    cameras: Tensor

    def counterpart(self, scene: int) -> int | None:
        """Index of the scene that differs from `scene` in one thing, with equal cameras."""
        partner = scene ^ 1
        same = partner < len(self) and torch.equal(self.cameras[scene], self.cameras[partner])
        return partner if same else None

    @property
    def composed(self) -> bool:
        """True if there are compositions among the scenes."""
        return any(scene.composed for scene in self.scenes)

    def __len__(self) -> int:
        return len(self.scenes)


def sample_cameras(generator: torch.Generator, n_groups: int = N_GROUPS) -> Cameras:
    """Random rings of four cameras of the blocks world."""
    return sample_groups(
        n_groups,
        RING,
        fov_deg=FOV_DEG,
        elevation_deg=ELEVATION_DEG,
        object_radius=CAMERA_SCALE,
        generator=generator,
    )


def _draw(rng: np.random.Generator, flawed: float, composed: float) -> Scene:
    if composed and rng.random() < composed:
        return sample_composition(rng)
    flaw = str(rng.choice(FLAWS)) if rng.random() < flawed else None
    return sample_scene(rng, flaw=flaw)


def _render_shard(job: tuple[Path, int, int, int, float, float, bool]) -> None:
    path, seed, index, count, flawed, composed, counterparts = job
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, index])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    scenes, rgba, coverage, conditions = [], [], [], []
    last: tuple[Scene, Cameras] | None = None
    for i in range(count):
        if last and counterparts and i % 2 and last[0].flaw is None and not last[0].composed:
            scene, cameras = counterpart(last[0], rng), last[1]
        else:
            scene, cameras = _draw(rng, flawed, composed), sample_cameras(generator)
        last = scene, cameras
        views = raycast(scene, cameras, VIEW_SIZE)
        v, side = views.coverage.shape[0], VIEW_SIZE // CELL
        cells = views.coverage.reshape(v, side, CELL, side, CELL, -1).mean((2, 4))
        scenes.append(json.dumps(scene.to_dict()))
        rgba.append((views.rgba * 255).round().to(torch.uint8))
        coverage.append((cells * 255).round().to(torch.uint8))
        conditions.append(cameras.condition().float())
    tensors = {
        "rgba": torch.stack(rgba),
        "coverage": torch.stack(coverage),
        "cameras": torch.stack(conditions),
    }
    draft = path.with_suffix(".tmp")
    save_file(tensors, draft, metadata={"scenes": json.dumps(scenes)})
    os.replace(draft, path)


def render_dataset(
    folder: Path,
    n_scenes: int,
    *,
    seed: int,
    flawed: float = 0.28,
    composed: float = 0.0,
    counterparts: bool = False,
    workers: int | None = None,
) -> BlocksData:
    """Render ``n_scenes`` scenes into ``folder``, continuing an interrupted call, and load them.

    Args:
        folder: folder of the shards; all calls for one folder must have the same seed and shares.
        n_scenes: number of scenes, rounded up to whole shards of 250.
        seed: fixes every scene and camera; shards are independent of each other.
        flawed: share of the other scenes with a flaw, in [0, 1].
        composed: share of scenes that are compositions, in [0, 1].
        counterparts: every other scene is the `mixtures.counterpart` of the one before it, where
            that has one, seen by the same cameras.
        workers: processes; all cores by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flaws = list(FLAWS)
    recipe = {"seed": seed, "flawed": flawed, "flaws": flaws, "composed": composed}
    if counterparts:
        recipe["counterparts"] = COUNTERPARTS
    recipe |= {"shard": SHARD, "size": VIEW_SIZE, "channels": len(CHANNELS)}
    note = folder / "recipe.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != recipe:
        raise ValueError(
            f"{folder} holds a set with {note.read_text(encoding='utf-8')}, asked for "
            f"{json.dumps(recipe)}; choose another folder"
        )
    note.write_text(json.dumps(recipe), encoding="utf-8")
    n_shards = -(-n_scenes // SHARD)
    paths = [folder / f"shard-{i:04d}.safetensors" for i in range(n_shards)]
    jobs = [
        (path, seed, i, SHARD, flawed, composed, counterparts)
        for i, path in enumerate(paths)
        if not path.exists()
    ]
    if jobs:
        workers = workers or os.cpu_count() or 1
        context = multiprocessing.get_context("spawn")
        with context.Pool(min(workers, len(jobs))) as pool:
            done = pool.imap_unordered(_render_shard, jobs)
            for _ in tqdm(done, total=len(jobs), desc="render scenes", unit="shard"):
                pass
    return load_dataset(folder, n_shards)


def load_dataset(folder: Path, n_shards: int | None = None) -> BlocksData:
    """Load the shards of a folder that ``render_dataset`` has filled."""
    scenes: list[Scene] = []
    parts = []
    for path in sorted(folder.glob("shard-*.safetensors"))[:n_shards]:
        with safe_open(path, framework="pt") as file:
            texts = json.loads(file.metadata()["scenes"])
        scenes += [Scene.from_dict(json.loads(t)) for t in texts]
        parts.append(load_file(path))
    if not parts:
        raise FileNotFoundError(f"no shards in {folder}; make them with render_dataset")
    joined = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
    return BlocksData(scenes, joined["rgba"], joined["coverage"], joined["cameras"])
