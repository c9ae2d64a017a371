"""Checks of the devices and dtypes that a caller asks for."""

from __future__ import annotations

import torch

from vlmreward.models.wording import reason_of

__all__ = ["checked_device", "checked_dtype"]


def checked_device(device: object, what: str = "device") -> torch.device | None:
    """A device that can be computed on; None stays None.

    Args:
        device: a ``torch.device``, its name, or the number of a GPU.
        what: the argument's name, for the message.

    Raises:
        TypeError: ``device`` has another type.
        ValueError: no such device exists, or this machine does not have it.
    """
    if device is None:
        return None
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(
            f"{what} is a {type(device).__name__}; expected a torch.device or a name such as "
            "'cpu' or 'cuda'"
        )
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"{what} is {device!r}; expected 'cpu', 'cuda', 'cuda:1', ...") from None
    if found.type == "meta":
        raise ValueError(f"{what} is {device!r}, which holds no values; expected 'cpu' or 'cuda'")
    try:
        torch.empty(0, device=found)
    except Exception as error:
        here = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ValueError(
            f"{what} is {str(device)!r}, which is not on this machine ({reason_of(error)}); "
            f"expected one of cpu{', '.join(['', *here])}: leave it out to have one chosen"
        ) from error
    return found


def checked_dtype(dtype: object) -> torch.dtype | None:
    """A floating dtype; None stays None.

    Raises:
        TypeError: not a ``torch.dtype``.
        ValueError: one of integers or complex numbers.
    """
    if dtype is None:
        return None
    if not isinstance(dtype, torch.dtype):
        raise TypeError(
            f"dtype is {dtype!r}, a {type(dtype).__name__}; expected a torch.dtype such as "
            "torch.bfloat16"
        )
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; expected a floating one such as torch.bfloat16")
    return dtype
