"""Gradient checkpointing for frozen models in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["checkpoint_layers", "layers_of"]


def layers_of(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The blocks of a transformers model that repeat, of its vision towers too."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _method(model: PreTrainedModel, name: str) -> Callable[..., None]:
    """The method by its name from transformers 5.23 on, or by the earlier one, deprecated since."""
    return getattr(model, f"activation_{name}", None) or getattr(model, f"gradient_{name}")


def checkpoint_layers(model: PreTrainedModel, *, on: bool = True) -> None:
    """Keep only the input of each layer; the backward pass computes its intermediates again.

    transformers checkpoints in training mode only. That mode is therefore set on the layer modules
    themselves, where it has no other effect, and not on their submodules (dropout).
    ``model.eval()`` undoes it: call this function again afterwards.

    Args:
        model: a transformers model in eval mode; changed in place.
        on: False switches checkpointing off.

    Raises:
        ValueError: the model has no layers that can be checkpointed.
    """
    layers = layers_of(model)
    if on and not layers:
        raise ValueError(
            f"{type(model).__name__} has no layers that can be checkpointed; expected those of "
            "transformers: leave out checkpoint=True"
        )
    if on:
        # without dropout there are no random numbers to repeat, and reading their state waits
        options = {"use_reentrant": False, "preserve_rng_state": False}
        _method(model, "checkpointing_enable")(options)
    elif layers:
        _method(model, "checkpointing_disable")()
    for layer in layers:
        layer.training = on
