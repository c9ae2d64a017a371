"""Ready-made configurations: `presets.blocks("a red cube", steps=300)` is a `VLM3DConfig`."""

from vlmreward_3d.config.preset import VLMS, Preset
from vlmreward_3d.presets.builtin import blocks, with_builtin_models
from vlmreward_3d.presets.latents import latent_nerf, sjc
from vlmreward_3d.presets.learnt_reward import dreamreward
from vlmreward_3d.presets.multi_view import mvdream, paper, release
from vlmreward_3d.presets.ranking import dreamdpo, rewardsds
from vlmreward_3d.presets.single_view import dreamfusion, prolificdreamer
from vlmreward_3d.presets.six_views import mvadapter
from vlmreward_3d.presets.splats import dreamgaussian

__all__ = [
    "PRESETS",
    "VLMS",
    "Preset",
    "blocks",
    "dreamdpo",
    "dreamfusion",
    "dreamgaussian",
    "dreamreward",
    "latent_nerf",
    "mvadapter",
    "mvdream",
    "paper",
    "prolificdreamer",
    "release",
    "rewardsds",
    "sjc",
    "with_builtin_models",
]

PRESETS = {
    "blocks": blocks,
    "paper": paper,
    "release": release,
    "mvdream": mvdream,
    "mvadapter": mvadapter,
    "dreamfusion": dreamfusion,
    "prolificdreamer": prolificdreamer,
    "dreamreward": dreamreward,
    "dreamdpo": dreamdpo,
    "rewardsds": rewardsds,
    "dreamgaussian": dreamgaussian,
    "sjc": sjc,
    "latent_nerf": latent_nerf,
}
"""The presets by name."""
