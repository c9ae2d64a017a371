"""Settings of the optimizer, of the regularizers, and of the recovery from a collapse."""

from __future__ import annotations

from dataclasses import dataclass

from vlmreward_3d.config._checks import (
    COUNT_OR_NONE,
    NOT_NEGATIVE,
    WEIGHT,
    Rule,
    are,
    check,
    is_share,
    one_of,
    require,
    whole,
)
from vlmreward_3d.schedule import Schedule

__all__ = ["OPTIMIZERS", "OptimizerConfig", "RecoveryConfig", "RegularizerConfig"]

OPTIMIZERS = ("adamw", "adamax")
"""Optimizers by name."""

_OFF = Schedule.constant(0)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Settings of the optimizer, AdamW or Adamax.

    Attributes:
        name: "adamw" (Loshchilov and Hutter, 2019), or "adamax", which divides by a running maximum
            of the gradient's size in place of the root of a second moment (Kingma and Ba, 2015,
            Sec. 7.1); one of `OPTIMIZERS`.
        learning_rate: Learning rate of every parameter, before the factor of its group.
        betas: Decay rates of the two moments.
        eps: Constant added to the divisor: the root of the second moment, or the maximum.
        weight_decay: Factor of decoupled weight decay: each step first multiplies every parameter
            by 1 - learning rate * weight_decay; 0 is Adam. Must be 0 with "adamax".

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    name: str = "adamw"
    learning_rate: Schedule
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-15
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            name=one_of(OPTIMIZERS),
            learning_rate=WEIGHT,
            betas=Rule(
                lambda x: are(x, lambda beta: is_share(beta) and beta < 1, 2),
                "two numbers in [0, 1)",
            ),
            eps=NOT_NEGATIVE,
            weight_decay=Rule(lambda x: is_share(x) and x < 1, "a number in [0, 1)"),
        )
        decays = self.name == "adamw" or self.weight_decay == 0
        require(decays, self, "weight_decay", '0 with name="adamax"')


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig:
    """Settings of the regularizers of the rendered opacities, for every kind of field.

    Attributes:
        entropy_weight: Weight of the opacities' binary entropy.
        sparsity_weight: Weight of the sparsity loss.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    entropy_weight: Schedule = _OFF
    sparsity_weight: Schedule = _OFF

    def __post_init__(self) -> None:
        check(self, entropy_weight=WEIGHT, sparsity_weight=WEIGHT)


@dataclass(frozen=True, kw_only=True)
class RecoveryConfig:
    """Detection of a collapse, and retries of a run that has failed.

    Attributes:
        patience: Number of consecutive steps with empty, full or hazy views after which a run
            counts as collapsed; None disables the detection, for clouds and the like.
        max_retries: Number of times that a failed run may go back to the last good checkpoint, to
            try again with other random numbers and half the learning rate.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    patience: int | None = 50
    max_retries: int = 3

    def __post_init__(self) -> None:
        check(self, patience=COUNT_OR_NONE, max_retries=whole(0))
