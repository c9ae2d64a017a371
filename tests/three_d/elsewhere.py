"""A second device without one: tensors that say "lazy" and hold numbers on the CPU.

Every operation runs on the CPU and is refused where real devices would refuse it: operands on
different devices (numbers of no dimension apart), or a random generator of another device. So a
computation that passes here leaves nothing behind on the CPU, and gives the CPU's numbers.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("lazy")
aten = torch.ops.aten
# may read from one device and write to another, or be indexed from the CPU
CROSSING = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


class Elsewhere(torch.Tensor):
    """A tensor on that device; `inner` has its numbers."""

    @staticmethod
    def __new__(cls, inner):
        kind = {"dtype": inner.dtype, "device": DEVICE, "strides": inner.stride()}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.size(), **kind)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def tolist(self):
        return self.inner.tolist()

    def new_tensor(self, data):
        return torch.tensor(data, dtype=self.dtype).to(DEVICE)

    def numpy(self, *, force=False):
        raise TypeError("numpy reads the CPU alone")

    def __repr__(self, **_):
        return f"Elsewhere({self.inner})"


def run(func, args, kwargs):
    flat, spec = tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    here = [x for x in tensors if not isinstance(x, Elsewhere)]
    there = len(tensors) > len(here)
    crossing = func in CROSSING or (func in INDEXED and isinstance(args[0], Elsewhere))
    if there and not crossing and any(x.dim() for x in here):
        raise RuntimeError(f"{func}: tensors on two devices")
    asked = kwargs.get("device")
    target = DEVICE if asked is None and there else asked
    generator = kwargs.get("generator")
    if generator is not None and torch.device(target or "cpu") != generator.device:
        raise RuntimeError(f"{func}: a generator on {generator.device} for tensors on {target}")
    inner = [x.inner if isinstance(x, Elsewhere) else x for x in flat]
    args_, kwargs_ = tree_unflatten(inner, spec)
    if asked is not None:
        kwargs_["device"] = torch.device("cpu")
    out = func(*args_, **kwargs_)
    if torch.device(target or "cpu") != DEVICE:
        return out
    owners = {id(x.inner): x for x in tensors if isinstance(x, Elsewhere)}

    def wrap(x):
        if not isinstance(x, torch.Tensor):
            return x
        # what is written in place stays the tensor that it was
        return owners[id(x)] if id(x) in owners else Elsewhere(x)

    return tree_map(wrap, out)


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


@contextmanager
def elsewhere(monkeypatch):
    """Within, `DEVICE` is a device that works."""
    # autocast does not know it
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    for name in ("tensor", "as_tensor"):
        # these do not ask the mode, for "meta"
        made = getattr(torch, name)

        def here_first(data, *, device=None, made=made, **options):
            return made(data, **options) if device is None else made(data, **options).to(device)

        monkeypatch.setattr(torch, name, here_first)
    with _Factories():
        yield


def back(tensor):
    """The numbers of a tensor, wherever it is."""
    return tensor.inner if isinstance(tensor, Elsewhere) else tensor
