"""Reward3D of DreamReward (Ye et al., 2024): a human preference of four views of an object."""

from vlmreward.models.reward3d.network import Reward3DNetwork, load_network

__all__ = ["Reward3DNetwork", "load_network"]
