"""MV-Adapter (Huang et al., 2024): six orthographic views by Stable Diffusion 2.1 or XL."""

from vlmreward_3d.guidance.diffusion.mv_adapter.adapter import MVAdapter

__all__ = ["MVAdapter"]
