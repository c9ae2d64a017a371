"""The patch embedding of Qwen-VL vision towers as a matrix product in place of a convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PatchProjection", "replace_patch_conv_with_linear"]


class PatchProjection(nn.Module):
    """A convolution over inputs of the kernel's size, as one matrix product of its parameters.

    Convolution libraries are slow in this case, and slowest in the backward pass.

    Args:
        convolution: the layer to replace; its parameters are shared, under the same names.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias

    def forward(self, patches: Tensor) -> Tensor:
        """Patches ``(N, channels, frames, height, width)`` -> ``(N, features)``."""
        return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def replace_patch_conv_with_linear(model: nn.Module) -> None:
    """Replace the convolutions over flattened patches of a model, in place.

    Args:
        model: any transformers model; those that feed images instead of patches are left alone.
    """
    for module in model.modules():
        layer = getattr(module, "proj", None)
        if (
            type(layer) is nn.Conv3d
            and type(module).__name__.startswith("Qwen")
            and layer.kernel_size == layer.stride
            and layer.padding == (0, 0, 0)
            and layer.groups == 1
        ):
            module.proj = PatchProjection(layer)
