"""Common parts of the trainings of both built-in models: schedule, averaging, log, state."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmreward_3d.blocks.training.muon import Float32Muon

_AVERAGED_OVER = 0.998
_DECAY = 0.03


def command_line(
    description: str | None,
    *,
    steps: int,
    batch: str,
    batch_size: int,
    lr: float,
    matrix_lr: float,
) -> argparse.ArgumentParser:
    """Parser of the options of both trainings; the arguments of this function are the defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder of rendered scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder for state and model")
    parser.add_argument("--scenes", type=int, default=12000, help="scenes to render or load")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch_size, help=batch)
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate of AdamW")
    parser.add_argument(
        "--matrix-lr", type=float, default=matrix_lr, help="peak learning rate of Muon"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=250, help="steps")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=device == "cuda" or cpu_has_bfloat16(),
        help="default: where the GPU, or the CPU's instructions, multiply in bfloat16",
    )
    parser.add_argument("--device", default=device)
    return parser


def cpu_has_bfloat16() -> bool:
    """True if the CPU has instructions for it; PyTorch is about 100 times slower without."""
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def muon(params: list[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The Muon optimizer, with products in a precision that the parameters' device is fast in."""
    if all(p.device.type == "cpu" for p in params) and not cpu_has_bfloat16():
        return Float32Muon(params, lr=lr, weight_decay=weight_decay)
    return torch.optim.Muon(
        params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )


class Trainer:
    """Optimizer with warm-up and cosine decay, an averaged copy of the model, and resumable state.

    Args:
        model: model to train, on its device.
        muon_params: weights of inner linear and convolutional layers, which Muon trains (Jordan et
            al., 2024), its steps scaled to the size of AdamW's. AdamW trains all others.
        out: folder of ``state.pt`` and ``log.jsonl``; made if missing. An existing state is
            continued.
        steps: length of the training.
        lr: AdamW's peak learning rate.
        matrix_lr: Muon's peak learning rate.
        warmup: number of steps until the peak learning rates are reached.
        betas: AdamW's coefficients of the running averages.

    Attributes:
        average: exponential moving average of the model over about 500 steps.
        start: number of steps already done.
    """

    def __init__(
        self,
        model: nn.Module,
        muon_params: Iterable[nn.Parameter],
        *,
        out: Path,
        steps: int,
        lr: float,
        matrix_lr: float,
        warmup: int,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.model, self.out, self.steps, self.warmup = model, out, steps, warmup
        self.average: Any = copy.deepcopy(model).requires_grad_(False)
        # Muon wants 2-D parameters: each is a view of its weight, (out, in * height * width)
        self._muon_params = [(p, nn.Parameter(p.detach().flatten(1))) for p in muon_params]
        inner = {p for p, _ in self._muon_params}
        others = [p for p in model.parameters() if p not in inner]
        groups = [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": _DECAY},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=lr, betas=betas),
            muon([flat for _, flat in self._muon_params], matrix_lr, _DECAY),
        ]
        self._peaks = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.start = 0
        if self._state.exists():
            state = torch.load(self._state, weights_only=True, map_location="cpu")
            self.start = state["step"]
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    @property
    def _state(self) -> Path:
        return self.out / "state.pt"

    def update(self, loss: Tensor, step: int) -> None:
        """One step of the optimizer and of the average.

        Raises:
            FloatingPointError: the loss is not finite; nothing has changed.
        """
        if not loss.isfinite():
            raise FloatingPointError(
                f"step {step}: the loss is {loss.item()}; expected a finite number; go on from the "
                "last checkpoint with a lower --lr or another --seed"
            )
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        share = min(1.0, (step + 1) / self.warmup) * max(0.04, cosine)
        for optimizer, peaks in zip(self.optimizers, self._peaks):
            for group, peak in zip(optimizer.param_groups, peaks):
                group["lr"] = peak * share
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for weight, flat in self._muon_params:
            flat.grad = None if weight.grad is None else weight.grad.flatten(1)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(_AVERAGED_OVER, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.model.parameters()):
                mean.lerp_(now, 1 - decay)

    def log(self, **entry: object) -> None:
        """Append a line to ``log.jsonl``."""
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def save(self, step: int) -> None:
        """Write the state after ``step`` steps, atomically."""
        draft = self._state.with_suffix(".tmp")
        torch.save(
            {
                "step": step,
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
            draft,
        )
        os.replace(draft, self._state)
