"""Ready-made configurations."""

from __future__ import annotations

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.schedule import Schedule

__all__ = ["blocks"]


def blocks(prompt: str, *, steps: int = 300, seed: int = 0, with_vlm: bool = True) -> VLM3DConfig:
    """The built-in models on a laptop CPU.

    As in the paper: Algorithm 1, the selected prompt, lambda from 300 to 1 over the first two
    thirds and then 1 (10,000 of 15,000 steps there), noise annealed as in the authors' release.

    Different from the paper, because the models are small and work in pixels: 4 views of 64 px,
    hundreds of steps, cameras and gray backgrounds as the denoiser was trained on, albedo without
    shading, a dense field, and a limit to the reward (`vlm_limit`): the paper's 300 weighs against
    sums over 4 x 32 x 32 latents of Stable Diffusion, and here would leave nothing of the text's
    other teacher; lambda times the reward's gradient stays within the score-distillation gradient's
    norm at the pixels. Against the haze that a denoiser on gray backgrounds leaves, opacities are
    pushed to be few, and each to be whole.

    Args:
        prompt: What to make.
        steps: Length of the run.
        seed: Of everything random.
        with_vlm: False for score distillation alone.
    """
    return VLM3DConfig(
        prompt=prompt,
        seed=seed,
        steps=steps,
        denoiser="builtin/blocks",
        vlm="builtin/blocks" if with_vlm else None,
        vlm_prompt="paper/selected",
        fov_deg=(30.0, 45.0),
        elevation_deg=(5.0, 40.0),
        scale=(0.8, 1.0),
        background="gray",
        field_resolutions=(6, 12, 24, 48),
        blob_density=10.0,
        blob_radius=0.5,
        density_scale=10.0,
        samples_per_ray=32,
        learning_rate=Schedule(((0.0, 0.05), (0.7, 0.05), (1.0, 0.01))),
        guidance_scale=4.0,
        guidance_rescale=0.5,
        t_min=Schedule.ramp(0.98, 0.02, until=0.4),
        t_max=Schedule.ramp(0.98, 0.5, until=0.4),
        vlm_weight=Schedule.ramp(300.0, 1.0, until=2 / 3),
        vlm_limit=1.0,
        orientation_weight=Schedule.ramp(1.0, 10.0, until=0.5),
        sparsity_weight=Schedule.ramp(0.0, 200.0, until=0.5),
        entropy_weight=Schedule.ramp(0.0, 60.0),
    )
