"""Time and memory of a step from sizes alone: an estimate, with its formulas.

For N tokens in a layer of M weights, attention of width A over a reach of R tokens, in a dtype of b
bytes, a frozen model's step takes

- forward ``2 M N + 4 A N R`` operations; backward, to the hidden states alone,
  ``2 M N + 10 A N R``, as memory-efficient attention computes its scores again;
- ``(saved b + saved_float32 4) N`` bytes until the backward pass: inputs of norms, queries, keys,
  values and results of attention, and intermediate values of the MLP.

Time is the larger of two: operations divided by the GPU's rate for dense bfloat16 times
``UTILIZATION``, and twice the bytes of the weights divided by the GPU's memory bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmreward.doctor.architecture import Tower

__all__ = ["GPU", "GPUS", "UTILIZATION", "Cost", "Work", "step_cost"]

UTILIZATION = 0.4
"""Part of a GPU's highest rate that is assumed to be reached: a guess, from 0.3 to 0.6 usually."""


@dataclass(frozen=True)
class GPU:
    """A GPU, by its vendor's data sheet.

    Attributes:
        flops: operations a second, dense bfloat16 on tensor cores.
        memory: bytes.
        bandwidth: bytes a second, to and from its memory.
    """

    flops: float
    memory: float
    bandwidth: float


GPUS = {
    "H200": GPU(989e12, 141e9, 4.8e12),
    "H100": GPU(989e12, 80e9, 3.35e12),
    "A100": GPU(312e12, 80e9, 2.039e12),
    "A100-40GB": GPU(312e12, 40e9, 1.555e12),
    "L40S": GPU(362e12, 48e9, 0.864e12),
    "L4": GPU(121e12, 24e9, 0.3e12),
    "RTX4090": GPU(165e12, 24e9, 1.008e12),
    "RTX3090": GPU(71e12, 24e9, 0.936e12),
}
"""GPUs by name; SXM forms of data-center GPUs."""


@dataclass(frozen=True)
class Work:
    """Numbers of patches and tokens in a step.

    Attributes:
        patches: for every image or tile, the patches that the vision tower sees together.
        image_tokens: tokens of all images in the prompt.
        tokens: all tokens of the prompt.
    """

    patches: tuple[int, ...]
    image_tokens: int
    tokens: int


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a step, forward and backward, of one query.

    Attributes:
        operations: number of floating-point operations.
        kept: bytes saved for the backward pass.
        kept_checkpoint: bytes saved for the backward pass with ``checkpoint=True``.
        weights: bytes of all parameters.
    """

    operations: float
    kept: int
    kept_checkpoint: int
    weights: int

    @property
    def peak(self) -> int:
        """Bytes of the weights and of the tensors saved for the backward pass."""
        return self.weights + self.kept

    @property
    def peak_checkpoint(self) -> int:
        """``peak`` with ``checkpoint=True``."""
        return self.weights + self.kept_checkpoint

    def seconds(self, gpu: GPU, *, utilization: float = UTILIZATION) -> float:
        """Estimated seconds on a GPU; with ``checkpoint=True`` about a third more."""
        return max(self.operations / (gpu.flops * utilization), 2 * self.weights / gpu.bandwidth)


def step_cost(vision: Tower, text: Tower, connector: int, work: Work, *, item_size: int) -> Cost:
    """Cost of a step by the formulas of this module.

    Args:
        vision: the vision tower.
        text: the language model.
        connector: parameters between them, by which every token of an image is multiplied.
        work: tokens of the step.
        item_size: bytes of a number in the model's dtype.
    """
    parts = [(vision, work.patches), (text, (work.tokens,))]
    costs = [_stack(tower, lengths, item_size) for tower, lengths in parts]
    inside = max(largest for _, _, _, largest in costs)
    return Cost(
        sum(operations for operations, _, _, _ in costs) + 4 * connector * work.image_tokens,
        sum(kept for _, kept, _, _ in costs),
        sum(states for _, _, states, _ in costs) + inside,
        item_size * (vision.parameters + text.parameters + connector),
    )


def _stack(tower: Tower, lengths: Sequence[int], item_size: int) -> tuple[float, int, int, int]:
    """Operations, bytes kept, bytes of the states between layers, and of the largest layer."""
    n = sum(lengths)
    operations, kept, states, largest = 0.0, 0, 0, 0
    for layer in tower.layers:
        reach = sum(length * min(length, layer.window or length) for length in lengths)
        operations += 4 * layer.weights * n + 14 * layer.attention * reach
        inside = n * (layer.saved * item_size + layer.saved_float32 * 4)
        kept += inside
        states += n * layer.width * item_size
        largest = max(largest, inside)
    return operations, kept, states, largest
