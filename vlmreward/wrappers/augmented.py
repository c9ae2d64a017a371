"""The mean reward over random transformations of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from vlmreward.images.batch import ImageBatch, Images, concatenate
from vlmreward.images.layout import to_compute_dtype
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text, repeat_values
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import flag, reward_like, whole
from vlmreward.wrappers._gradient_accumulation import accumulate_gradients
from vlmreward.wrappers._seeding import SEEDED, seeded
from vlmreward.wrappers.augmentations import standard_augmentation

__all__ = ["ExpectationOverTransformations"]


class ExpectationOverTransformations(RewardModule):
    """Expectation of a reward over random transformations of the images (EOT).

    Implements Eq. 1 of Athalye et al. (2018), "Synthesizing Robust Adversarial Examples", with the
    opposite aim: noise that fools a model seldom survives a small rotation, crop or blur, so that
    its part of the gradient averages out, and the part that all transformations share remains.

    The value is the mean over ``num_samples`` transformations, the gradient exactly that of this
    mean. ``micro_batch_size`` samples are computed at a time. If there are more samples than that,
    the gradient is computed during the call, and each graph is freed before the next one: memory
    is that of ``micro_batch_size`` samples, time that of ``num_samples`` rewards and backward
    passes, and the result can be differentiated once. With ``micro_batch_size=num_samples`` there
    is one ordinary graph.

    Args:
        reward: any reward, called as ``reward(images, prompt)``.
        augmentation: differentiable map ``(N, 3, H, W) -> (N, 3, H', W')`` of float32 or float64
            images that draws from torch's global generators and transforms every image of a batch
            separately: an augmentation of kornia, a ``Sequential`` of them, or any callable. None
            for ``standard_augmentation()``.
        num_samples: number of transformations in a call, at least 1.
        share_across_views: use one transformation for all views of a query, so that they stay
            consistent with each other; otherwise one for each view. Queries never share one.
        micro_batch_size: number of samples in a call of ``reward``; a larger number is faster if
            the device has enough memory.
        generator: CPU generator of the seeds, one for each sample; None for torch's global
            generator. Two generators at the same seed give the same samples; the augmentation's
            own draws do not change the state of the global generators.

    Raises:
        TypeError: an argument of another type.
        ValueError: ``num_samples`` or ``micro_batch_size`` below 1, or a generator that is
            not on the CPU.

    Example:
        ``ExpectationOverTransformations(reward, num_samples=4)(images, prompt="a cat").sum()``.
    """

    def __init__(
        self,
        reward: Reward,
        augmentation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        *,
        num_samples: int = 4,
        share_across_views: bool = True,
        micro_batch_size: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        reward_like(reward)
        whole("num_samples", num_samples)
        whole("micro_batch_size", micro_batch_size)
        flag("share_across_views", share_across_views)
        if augmentation is not None and not callable(augmentation):
            raise TypeError(
                f"augmentation is a {type(augmentation).__name__}; expected a callable of images "
                "(N, 3, H, W), or None"
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator is a {type(generator).__name__}; expected a torch.Generator, or None"
            )
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(
                f"generator is on {generator.device}; expected one on the CPU: torch.Generator()"
            )
        self.reward = reward
        self.augmentation = standard_augmentation() if augmentation is None else augmentation
        self.num_samples = num_samples
        self.share_across_views = share_across_views
        self.micro_batch_size = micro_batch_size
        self.generator = generator

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """Mean reward of each query over the transformations.

        Raises:
            ValueError: the augmentation did not return a batch of as many RGB images.
            RuntimeError: the reward is not differentiable.
        """
        seeds = self._seeds()
        terms = [
            partial(self._term, seeds[start : start + self.micro_batch_size], values)
            for start in range(0, self.num_samples, self.micro_batch_size)
        ]
        return accumulate_gradients(
            terms,
            batch,
            "ExpectationOverTransformations has freed the graphs of its samples; expected "
            "create_graph=False: for derivatives of the gradient pass micro_batch_size=num_samples",
        )

    def augment(self, images: Images) -> Images:
        """The images under one random transformation, for inspection: same layout, in [0, 1]."""
        return self._transformed(ImageBatch.of(images), self._seeds()[0]).images

    def _seeds(self) -> list[int]:
        with SEEDED:
            return torch.randint(2**62, (self.num_samples,), generator=self.generator).tolist()

    def _term(
        self, seeds: Sequence[int], values: Mapping[str, Text], batch: ImageBatch
    ) -> torch.Tensor:
        """The share of these samples in the mean, by one call of the reward."""
        times = len(seeds)
        samples = concatenate([self._transformed(batch, seed) for seed in seeds])
        rewards = call_reward(self.reward, samples, repeat_values(values, times))
        return rewards.view(times, len(batch)).sum(dim=0) / self.num_samples

    def _transformed(self, batch: ImageBatch, seed: int) -> ImageBatch:
        images = batch.images
        if isinstance(images, torch.Tensor):
            return batch.with_tensors([self._transformed_tensor(images, seed)])
        generator = torch.Generator().manual_seed(seed)
        out: list[torch.Tensor] = []
        for query in images:
            if isinstance(query, torch.Tensor) and query.ndim == 3:
                out += self._one_by_one([query], generator)
            elif isinstance(query, torch.Tensor):
                out.append(torch.stack(self._one_by_one(list(query), generator)))
            else:
                out += self._one_by_one(query, generator)
        return batch.with_tensors(out)

    def _transformed_tensor(self, images: torch.Tensor, seed: int) -> torch.Tensor:
        if images.ndim == 4:
            return self._apply_seeded(images, seed)
        if not self.share_across_views:
            each = self._apply_seeded(images.flatten(0, 1), seed)
            return each.unflatten(0, images.shape[:2])
        # The draws for a batch depend on its shape alone, so the same seed gives each view of a
        # query the same transformation
        views = [self._apply_seeded(view, seed) for view in images.unbind(1)]
        return torch.stack(views, dim=1)

    def _one_by_one(
        self, views: Sequence[torch.Tensor], generator: torch.Generator
    ) -> list[torch.Tensor]:
        """Views of one query, maybe of different sizes."""
        seeds = torch.randint(2**62, (len(views),), generator=generator).tolist()
        if self.share_across_views:
            seeds = seeds[:1] * len(views)
        return [self._apply_seeded(view[None], seed)[0] for view, seed in zip(views, seeds)]

    def _apply_seeded(self, images: torch.Tensor, seed: int) -> torch.Tensor:
        with seeded(seed, images.device):
            out = self.augmentation(to_compute_dtype(images))
        if not isinstance(out, torch.Tensor) or out.ndim != 4 or out.shape[:2] != images.shape[:2]:
            received = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise ValueError(
                f"the augmentation returned {received} for {tuple(images.shape)}; expected "
                f"({len(images)}, 3, H, W)"
            )
        return out.clamp(0, 1).to(images.dtype)
