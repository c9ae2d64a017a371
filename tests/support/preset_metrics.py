"""Print the metrics of short runs of every preset, exact to the bit, and a digest of the field.

    python tests/support/preset_metrics.py > before.json
    python tests/support/preset_metrics.py before.json

The second form compares with a former output and exits with 1 if anything differs.

A change of the structure of the code must not change a single number.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import ldm_reference as ldm
import torch
from safetensors.torch import save_file
from stub_models import RandomDenoiser, build_vlm3d, random_vlm, redness, tiny
from tiny_latent_models import adapter_state, build, checkpoint, randomized, stable, tokenizer

from vlmreward_3d import presets
from vlmreward_3d.guidance import loading
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import VLM3D

SMALL = {
    "steps": 20,
    "camera.resolution": Schedule.constant(16),
    "field.resolutions": (4, 8),
    "field.occupancy.resolution": 8,
    "field.rays.samples_per_ray": 6,
    "field.rays.rays_per_chunk": 500,
}
OF_STABLE_DIFFUSION = (
    "dreamfusion",
    "prolificdreamer",
    "dreamgaussian",
    "mvadapter",
    "sjc",
    "latent_nerf",
)
STUBS = {
    "stub": {},
    "stub interval": {"vlm.weighting.interval": 3},
    "stub cache": {
        "vlm.weighting.interval": 3,
        "vlm.weighting.cache_gradient": True,
        "vlm.weighting.stop_at": 0.8,
    },
    "stub cache in chunks": {
        "vlm.weighting.interval": 4,
        "vlm.weighting.cache_gradient": True,
        "field.rays.rays_per_chunk": 100,
    },
    "stub balance": {
        "vlm.weighting.max_grad_ratio": None,
        "vlm.weighting.grad_ratio": 0.7,
        "vlm.weighting.interval": 2,
    },
    "stub views": {
        "camera.n_groups": 2,
        "vlm.weighting.n_views": 2,
        "vlm.resolution": 24,
        "vlm.weighting.stop_at": 0.6,
    },
    "stub single view": {
        "vlm.weighting.n_views": 1,
        "score_distillation.rule": "sds",
        "camera.background": "gray",
    },
    "stub shading": {
        "field.shading": (0.25, 0.375, 0.375),
        "field.orientation_weight": Schedule.constant(0.1),
        "field.tv_weight": Schedule.constant(0.1),
        "regularizers.entropy_weight": Schedule.constant(0.2),
    },
    "stub without VLM": {
        "vlm": None,
        "score_distillation.shared_timestep": True,
        "camera.n_groups": 2,
    },
    "stub hash": {
        "field": "hash_grid",
        "field.levels": 3,
        "field.resolution_range": (4, 16),
        "field.table_size": 1024,
    },
    "stub Gaussians": {
        "field": "gaussians",
        "field.n_gaussians": 200,
        "vlm.weighting.interval": 2,
        "vlm.weighting.cache_gradient": True,
    },
}


def sources(root: Path) -> Path:
    """A folder with a small random MVDream, Stable Diffusion and VLM."""
    torch.manual_seed(0)
    sizes = {"channels": 32, "mult": (1, 2), "blocks": 1, "context": 24, "head_channels": 8}
    whole = checkpoint(
        randomized(ldm.MVDreamUNet(**sizes)),
        randomized(ldm.Autoencoder((32, 32), blocks=1)),
        randomized(ldm.OpenClipText(len(tokenizer()), 24, layers=2, heads=3, length=12)),
    )
    torch.save(whole, root / "small.pt")
    build(root / "small.pt").save_pretrained(root / "mvdream")
    model = stable()
    model.save_pretrained(root / "sd")
    save_file(adapter_state(model.unet), root / "adapter.safetensors")
    for part in random_vlm():
        part.save_pretrained(root / "vlm")
    return root


def models(root: Path):
    """Yield (name, model) of every run."""
    for name, changes in STUBS.items():
        config = tiny(steps=20, **changes)
        reward = redness if config.vlm else None
        yield name, build_vlm3d(config, RandomDenoiser(), reward)
    config = tiny(steps=20, vlm__weighting__n_views=2)
    yield "stub concurrent", build_vlm3d(config, RandomDenoiser(), redness, concurrent=True)
    for preset in sorted(presets.PRESETS.keys() - {"blocks"}):
        denoiser = root / ("sd" if preset in OF_STABLE_DIFFUSION else "mvdream")
        config = presets.PRESETS[preset](
            "a red cube", field="dense_grid", denoiser=str(denoiser), vlm=str(root / "vlm")
        )
        if config.score_distillation.adapter:
            adapter = str(root / "adapter.safetensors")
            config = config.replace({"score_distillation.adapter": adapter})
        config = config.replace({"further_guidances": ()})  # which need weights of their own
        later = [(at, 24) for at in config.camera.resolution.jumps]
        config = config.replace({**SMALL, "camera.resolution": Schedule.steps(16, *later)})
        yield preset, load_model(config)
    yield "blocks", load_model(presets.blocks("a red cube", steps=20))


def load_model(config):
    return VLM3D(config, loading.load_guidances(config))


def numbers(report) -> dict[str, str]:
    return {name: float(value).hex() for name, value in report.metrics.items()}


def run(root: Path) -> dict[str, dict]:
    """The metrics of each step and the digest of the field, of every run."""
    results = {}
    for name, model in models(root):
        steps = [numbers(model.step()) for _ in range(model.config.steps)]
        digest = hashlib.sha256()
        for parameter in model.field.parameters():
            digest.update(parameter.detach().numpy().tobytes())
        results[name] = {"steps": steps, "field": digest.hexdigest()}
        print(name, results[name]["field"][:16], file=sys.stderr)
    return results


def differences(ours: dict[str, dict], theirs: dict[str, dict]) -> list[str]:
    """Differences from a former output, but for metrics that only one of the two has."""
    found = [f"{name}: only once" for name in ours.keys() ^ theirs.keys()]
    for name in ours.keys() & theirs.keys():
        if ours[name]["field"] != theirs[name]["field"]:
            found.append(f"{name}: the field differs")
        pairs = zip(ours[name]["steps"], theirs[name]["steps"], strict=True)
        for step, (mine, others) in enumerate(pairs):
            found += [
                f"{name}, step {step}: {metric} {others[metric]} -> {mine[metric]}"
                for metric in mine.keys() & others.keys()
                if mine[metric] != others[metric]
            ]
    return found


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ours = run(sources(Path(folder)))
    if not arguments:
        print(json.dumps(ours, indent=1))
        return 0
    found = differences(ours, json.loads(Path(arguments[0]).read_text()))
    print("\n".join(found) or "equal to the bit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
