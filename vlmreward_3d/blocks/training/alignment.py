"""Training loss that aligns the reward's gradient at the pixels with known image differences.

Two scenes that differ in one thing are blended. The difference of their pictures is the direction
that turns the blend into the scene that a question describes. The loss is 1 minus the cosine
between this direction and the gradient of the log-odds (perceptually aligned gradients; Ganz et
al., 2023, with true directions in place of guessed ones). Its gradient to the weights is a second
derivative of the model.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmreward_3d.blocks.training.vlm_model import PackedVLM
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.captions import Question
from vlmreward_3d.blocks.world.dataset import N_GROUPS, RING, BlocksData
from vlmreward_3d.blocks.world.mixtures import blend_weights, mixture_questions
from vlmreward_3d.blocks.world.scenes import Scene

_CAPTIONS = 0.6
"""Share of the questions that contain a caption, like those of rewards."""


def pairs_of(data: BlocksData) -> list[tuple[int, int]]:
    """Scenes and their counterparts, in both orders where both are whole."""
    found = []
    for one in range(len(data)):
        two = data.counterpart(one)
        if two is not None and data.scenes[one].flaw is None:
            found.append((one, two))
    return found


def telling_question(one: Scene, two: Scene, rng: np.random.Generator) -> tuple[Question, float]:
    """A question that separates two scenes, and its sign: 1 if true of the first, else -1."""
    seed = int(rng.integers(2**32))
    truths = [
        mixture_questions(one, two, share, np.random.default_rng(seed))
        for share in ((1.0, 0.0), (0.0, 1.0))
    ]
    options = [(a, a.truth - b.truth) for a, b in zip(*truths) if a.truth != b.truth]
    captions = [option for option in options if option[0].kind.endswith(("caption", "front"))]
    chosen = captions if captions and rng.random() < _CAPTIONS else options
    question, sign = chosen[int(rng.integers(len(chosen)))]
    return question, float(np.sign(sign))


def alignment_loss(
    model: PackedVLM,
    data: BlocksData,
    pairs: list[tuple[int, int]],
    rng: np.random.Generator,
    *,
    strength: float,
    device: torch.device | str,
) -> Tensor:
    """Mean of 1 - cos between the log-odds' gradient and the difference of two scenes.

    Args:
        model: The VLM.
        data: Scenes and their counterparts.
        pairs: Indices of the two scenes of each pair.
        rng: Source of all random numbers.
        strength: Share of the usual damage of views, in [0, 1]; see `augment_and_composite`.
        device: Device of the model.
    """
    first = int(rng.integers(N_GROUPS)) * RING
    seed = int(rng.integers(2**62))

    def seen(scenes: list[int]) -> Tensor:
        # the same draws for both, so that they differ in the scenes alone
        generator = torch.Generator().manual_seed(seed)
        views = data.rgba[scenes, first : first + RING]
        return augment_and_composite(views, generator, strength=strength)

    one, two = seen([a for a, _ in pairs]), seen([b for _, b in pairs])
    size = one.shape[-1]
    weights = torch.stack([blend_weights(RING, size, rng) for _ in pairs]).permute(0, 1, 4, 2, 3)
    asked = [telling_question(data.scenes[a], data.scenes[b], rng) for a, b in pairs]
    signs = torch.tensor([sign for _, sign in asked], device=device)
    blend = (one + (two - one) * weights).to(device).requires_grad_()
    wanted = (one - two).to(device)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        odds = model.margins(blend, [[question] for question, _ in asked])
        (slope,) = torch.autograd.grad((signs * odds).sum(), blend, create_graph=True)
        cosine = F.cosine_similarity(slope.flatten(1), wanted.flatten(1))
        return (1 - cosine).mean()
