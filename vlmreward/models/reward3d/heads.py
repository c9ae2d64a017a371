"""The two heads of Reward3D, one per checkpoint: from the features of four views to a reward."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["CrossViewFusion", "Scorer", "head_of"]

N_VIEWS = 4
"""Number of views of an object."""
_MEAN = 0.16717362830052426


class Scorer(nn.Module):
    """The head of Reward3D_Scorer: linear layers on the concatenated features of the views.

    Each view goes through the first two layers of ImageReward's, there are no nonlinearities
    between any of them, and the result is (x - 0.167) / 1.033.

    Args:
        state: Tensors "mlp.layers.*" and "Scorer.*", which tell the sizes.
    """

    deviation = 1.0333394966054072

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"layers": _linear(state, "mlp.layers.")})
        self.Scorer = _linear(state, "Scorer.")

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 4, D) -> rewards (B,), differentiable; the order of the views matters."""
        of_view = cast(nn.Sequential, self.mlp["layers"])[:2]
        together = of_view(features).flatten(1)
        return (self.Scorer(together)[:, 0] - _MEAN) / self.deviation


class CrossViewFusion(nn.Module):
    """The head of Reward3D_CrossViewFusion: attention among the views, a gate, and their mean.

    Behind it are ImageReward's linear layers, and the result is (x - 0.167) / 5. The order of the
    views does not matter.

    Args:
        state: Tensors "mlp.layers.*" and "cross_view_adapter.*", which tell the sizes.
        head_channels: Channels of an attention head.
    """

    deviation = 5.0

    def __init__(self, state: Mapping[str, Tensor], *, head_channels: int = 64) -> None:
        super().__init__()
        width = state["cross_view_adapter.self_attn.out_proj.weight"].shape[0]
        self.mlp = nn.ModuleDict({"layers": _linear(state, "mlp.layers.")})
        attention = nn.MultiheadAttention(width, width // head_channels, batch_first=True)
        gate = nn.Sequential(nn.Linear(2 * width, width), nn.Sigmoid())
        self.cross_view_adapter = nn.ModuleDict({"self_attn": attention, "fusion_gate": gate})

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 4, D) -> rewards (B,), differentiable."""
        adapter = self.cross_view_adapter
        seen, _ = adapter["self_attn"](features, features, features, need_weights=False)
        gate = adapter["fusion_gate"](torch.cat([features, seen], dim=-1))
        fused = torch.lerp(features, seen, gate).mean(dim=1)
        return (self.mlp["layers"](fused)[:, 0] - _MEAN) / self.deviation


def head_of(state: Mapping[str, Tensor], *, head_channels: int = 64) -> Scorer | CrossViewFusion:
    """The head, still without weights, whose tensors a state dict holds.

    Raises:
        ValueError: Neither of the two.
    """
    with torch.device("meta"):
        if "Scorer.fc1.weight" in state:
            return Scorer(state)
        if "cross_view_adapter.self_attn.out_proj.weight" in state:
            return CrossViewFusion(state, head_channels=head_channels)
    raise ValueError("it has neither 'Scorer.fc1.weight' nor 'cross_view_adapter.self_attn'")


def _linear(state: Mapping[str, Tensor], before: str) -> nn.Sequential:
    """Linear layers of the names and sizes in a state dict, in the order of their names."""
    found = sorted(
        k[len(before) :].removesuffix(".weight")
        for k in state
        if k.startswith(before) and k.endswith(".weight")
    )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in found:
        out, into = state[f"{before}{name}.weight"].shape
        layers[name] = nn.Linear(into, out)
    return nn.Sequential(layers)
