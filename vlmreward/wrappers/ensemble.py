"""Weighted means of several rewards, with optional balancing of their gradients."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch
from vlmreward.images.layout import ImageBatchSpec
from vlmreward.rewards.module import SeveralRewards
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, as_named_dict, call_reward
from vlmreward.utils.arguments import number, reward_like
from vlmreward.utils.autograd_context import Context

__all__ = ["BALANCES", "Ensemble"]

BALANCES = (None, "gradient-norm")
"""Balancing of the members' gradients: None, or scaling of each to the same norm."""

_RUNNING = threading.Lock()
"""Lock of the running means, which backward passes of several threads update."""


class _Shared(torch.autograd.Function):
    """The images once for each member; the backward pass balances and sums their gradients."""

    @staticmethod
    def forward(
        ctx: Context, ensemble: Ensemble, spec: ImageBatchSpec, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.ensemble, ctx.spec, ctx.width = ensemble, spec, len(tensors)
        return tuple(tensor.view_as(tensor) for _ in ensemble.names for tensor in tensors)

    @staticmethod
    def backward(ctx: Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # with create_graph
            raise RuntimeError(
                "balanced gradients are not the derivative of anything; expected "
                "create_graph=False: for derivatives of the gradient pass balance=None"
            )
        members = [grads[i : i + ctx.width] for i in range(0, len(grads), ctx.width)]
        norms = torch.stack([ctx.spec.norms(member) for member in members])
        factors = ctx.ensemble.factors(norms)
        scaled = [ctx.spec.scaled(member, f) for member, f in zip(members, factors)]
        return None, None, *(torch.stack(parts).sum(dim=0) for parts in zip(*scaled))


class Ensemble(SeveralRewards):
    """Weighted mean of several rewards, whose gradients can be balanced.

    Noise that fools one model seldom fools another, so that a property on which several models
    agree is more likely to be real. But log-odds of different models have gradients of very
    different size, and in a plain sum the model with the largest gradient dominates.

    With ``balance="gradient-norm"`` the **value** is still the plain weighted mean, so that it can
    be read and logged; the **gradient** is not that of the value. With u_k the gradient of member
    k at a query's pixels (times the incoming gradient) and w_k the weights, of sum 1, it is

        sum_k w_k u_k n / |u_k|,    n = sum_k w_k |u_k|,

    so each member pulls in its own direction with strength w_k, and n keeps the size of the plain
    gradient: members of equal norm give the plain gradient again. A norm is over all views of a
    query, and queries do not mix. A member whose gradient is exactly zero adds nothing.

    Balancing at every step by itself (``momentum=0``) amplifies a member whose gradient has become
    small. ``momentum=0.9`` divides instead by a running mean over calls and queries of |u_k| / n,
    so that a member's gradient may be small for some steps.

    Args:
        rewards: the members, as a list or by name; see ``vlmreward.rewards.protocol.Reward``. They
            may be on different devices.
        balance: one of ``BALANCES``.
        weights: weight of each member, above 0, in order or by name; default: equal. They are
            normalized to sum 1.
        momentum: momentum of the running mean, in [0, 1); 0 uses the norms of each call and
            query alone.

    Attributes:
        names: names of the members.
        shares: buffer ``(K,)``, running means of |u_k| / n; NaN before the first backward pass.

    Raises:
        TypeError: a member that cannot be called, or a number of another type.
        ValueError: no members, weights that do not fit, unknown ``balance``, or ``momentum`` out of
            range.

    Example:
        ``Ensemble({"qwen": first, "gemma": second}, balance="gradient-norm", momentum=0.9)``.
    """

    shares: torch.Tensor

    def __init__(
        self,
        rewards: Sequence[Reward] | Mapping[str, Reward],
        *,
        balance: str | None = None,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        momentum: float = 0.0,
    ) -> None:
        super().__init__()
        members = as_named_dict(rewards, "rewards")
        if balance not in BALANCES:
            raise ValueError(f"balance is {balance!r}; expected one of {BALANCES}")
        for name, member in members.items():
            reward_like(member, f"rewards[{name}]")
        number("momentum", momentum, least=0, below=1)
        self.names = tuple(members)
        self.members = tuple(members.values())
        # Registered, so that they move with the ensemble; a member need not be a module
        self._modules_among = nn.ModuleList(m for m in self.members if isinstance(m, nn.Module))
        given = [1.0] * len(members) if weights is None else self._in_order(weights)
        self.weights = tuple(w / sum(given) for w in given)
        self.balance = balance
        self.momentum = momentum
        self.register_buffer("shares", torch.full((len(members),), float("nan")))

    def _in_order(self, weights: Sequence[float] | Mapping[str, float]) -> list[float]:
        if isinstance(weights, Mapping):
            if set(weights) != set(self.names):
                raise ValueError(
                    f"weights are for {sorted(weights)}; expected one for each of "
                    f"{sorted(self.names)}"
                )
            weights = [weights[name] for name in self.names]
        if not isinstance(weights, Sequence) or isinstance(weights, str):
            raise TypeError(
                f"weights is {weights!r}; expected a list of numbers, or a dict with names"
            )
        if len(weights) != len(self.names):
            raise ValueError(
                f"there are {len(weights)} weights; expected {len(self.names)}, one a reward"
            )
        return [number(f"weights[{i}]", w, above=0) for i, w in enumerate(weights)]

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """Weighted mean of the members' rewards; differentiable once if balanced."""
        width = len(batch.tensors)
        if self.balance is None:
            seen = batch.tensors * len(self.members)
        else:
            seen = _Shared.apply(self, batch.spec, *batch.tensors)
        rewards = [
            weight * call_reward(member, batch.with_tensors(own, same_values=True), values)
            for member, weight, own in zip(
                self.members,
                self.weights,
                [seen[k * width :][:width] for k in range(len(self.members))],
            )
        ]
        return torch.stack([reward.to(rewards[0].device) for reward in rewards]).sum(dim=0)

    def per_reward_batch(
        self, batch: ImageBatch, values: Mapping[str, Text]
    ) -> dict[str, torch.Tensor]:
        """The value ``(B,)`` of each member by name, with its own gradient."""
        return {
            name: call_reward(member, batch, values)
            for name, member in zip(self.names, self.members)
        }

    def factors(self, norms: torch.Tensor) -> torch.Tensor:
        """Factors of the weighted gradients w_k u_k; updates the running means.

        Args:
            norms: ``(K, B)`` of w_k u_k.

        Returns:
            ``(K, B)``; 0 where there is nothing to scale.
        """
        weights = norms.new_tensor(self.weights)[:, None]
        mean = norms.sum(dim=0)
        shares = torch.where(mean > 0, norms / weights / mean, 0.0)
        if self.momentum > 0:
            shares = self._running(shares, mean > 0)
        return torch.where(shares > 0, 1 / shares, 0.0)

    def _running(self, shares: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        with _RUNNING:
            if alive.any():
                now = shares[:, alive].mean(dim=1).to(self.shares)
                first = self.shares.isnan().any()
                self.shares.copy_(now if first else self.shares.lerp(now, 1 - self.momentum))
            running = self.shares.nan_to_num()  # a copy: other calls change the buffer
        return running.to(shares)[:, None].expand_as(shares)
