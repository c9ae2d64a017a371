"""Rewards of which value, gradient and expectation are known."""

import torch


class Linear:
    """r = <weight, sum of the views>, weight (3, H, W); takes every layout of images."""

    def __init__(self, weight, bias=0.0):
        self.weight, self.bias = weight, bias
        self.calls = []

    def __call__(self, images, prompt=None, **placeholders):
        self.calls.append((images, prompt, placeholders))
        if isinstance(images, torch.Tensor):
            views = images if images.ndim == 5 else images[:, None]
            return (views * self.weight).sum((1, 2, 3, 4)) + self.bias
        return torch.stack([(self._stack(q) * self.weight).sum() + self.bias for q in images])

    @staticmethod
    def _stack(query):
        return query if isinstance(query, torch.Tensor) else torch.stack(list(query))


class Square:
    """r = scale * sum of the squares of all values of a query."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, images, prompt=None):
        return self.scale * images.flatten(1).square().sum(1)


def noise(*shape, seed=0, dtype=torch.float64):
    """Uniform in [0.3, 0.7]."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(shape, generator=generator, dtype=dtype)


def pattern(*shape, seed=0):
    """Standard normal, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
