"""Replacement of an optimizer's parameters by others with more or fewer rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmreward_3d.fields.gaussian_rows import NEW

__all__ = ["exchange_parameters", "forget_moments"]


def exchange_parameters(
    optimizer: Optimizer, exchanged: Mapping[nn.Parameter, nn.Parameter], origins: Tensor
) -> None:
    """Replace parameters of an optimizer by new ones; groups and their settings stay.

    What the optimizer remembers of each element, such as Adam's two moments, goes with the rows
    that continue, and is 0 in new ones. Numbers of a whole parameter, such as Adam's count of
    steps, stay.

    Args:
        optimizer: Any whose state of a parameter has its shape, or is a number.
        exchanged: New parameters of M rows by the former ones, of N rows.
        origins: (M,) former row that each new one continues, or `NEW`.

    Raises:
        ValueError: A former parameter is not the optimizer's, or the optimizer remembers something
            of another shape; nothing is changed.
    """
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for former in exchanged:
        if id(former) not in known:
            raise ValueError(
                f"received a parameter of shape {tuple(former.shape)} that the optimizer does not "
                "have; expected the field's own optimizer; pass the one that was made of its "
                "parameter_groups"
            )
    edited = {
        former: {
            name: _edited(optimizer, former, name, value, origins)
            for name, value in optimizer.state.get(former, {}).items()
        }
        for former in exchanged
    }
    for group in optimizer.param_groups:
        group["params"] = [exchanged.get(p, p) for p in group["params"]]
    for former, state in edited.items():
        optimizer.state.pop(former, None)
        if state:
            optimizer.state[exchanged[former]] = state


def _edited(
    optimizer: Optimizer, former: nn.Parameter, name: str, value: object, origins: Tensor
) -> object:
    """The state `name` of a parameter after its rows have changed."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.shape != former.shape:
        raise ValueError(
            f"the state {name!r} of a {type(optimizer).__name__} has shape {tuple(value.shape)}; "
            f"expected that of its parameter, {tuple(former.shape)}: another one cannot follow "
            "rows that come and go; use Adam, AdamW or another that works element by element"
        )
    continues = origins != NEW
    rows = value.new_zeros(len(origins), *value.shape[1:])
    rows[continues] = value[origins[continues]]
    return rows


@torch.no_grad()
def forget_moments(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    """Set an optimizer's per-element state of a parameter to 0."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.ndim > 0:
            value.zero_()
