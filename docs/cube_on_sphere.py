"""Make docs/images/cube-on-sphere.png, the picture of the README's example:

    python docs/cube_on_sphere.py

It is a ray-cast scene of the blocks world.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.utils import save_image

from vlmreward_3d.blocks.world import raycast, sample_cameras
from vlmreward_3d.blocks.world.scenes import Scene, SceneObject, arrange

things = [SceneObject("cube", "red", 0.37), SceneObject("sphere", "blue", 0.37)]
relation = "on top of"
scene = Scene(arrange(things, relation, np.random.default_rng(0)), relation)
cameras = sample_cameras(torch.Generator().manual_seed(0), 1)
rgba = raycast(scene, cameras, 256).rgba[:1].float()
image = (rgba[..., :3] + 1 - rgba[..., 3:]).permute(0, 3, 1, 2)  # over white
save_image(image, Path(__file__).parent / "images" / "cube-on-sphere.png")
