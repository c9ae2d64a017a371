"""Mean rewards as a metric of the installed torchmetrics."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from reference_rewards import Linear, noise, pattern
from torch.testing import assert_close
from torchmetrics import Metric, MetricCollection

from vlmreward.integrations import RewardMetric

WEIGHT = pattern(3, 6, 5) / 10


class Odds(torch.nn.Module):
    """Log-odds that depend on the images, with a parameter that nobody may copy or save."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(WEIGHT.clone())

    def forward(self, images, prompt=None):
        return (images * self.weight).sum((1, 2, 3))


def metric(reward=None, **options):
    made = RewardMetric(reward or Odds(), **options)
    made.set_dtype(torch.float64)
    return made


@pytest.mark.parametrize("value", ["reward", "probability"])
def test_the_mean_weighs_queries_and_not_batches(value):
    images = noise(7, 3, 6, 5)
    seen = metric(value=value)
    for part in images.split([1, 4, 2]):
        seen.update(part, prompt="a cat")
    each = (images * WEIGHT).sum((1, 2, 3))
    expected = each.sigmoid() if value == "probability" else each
    assert_close(seen.compute(), expected.mean())
    assert not seen.compute().requires_grad
    seen.reset()
    seen.update(images[:1])
    assert_close(seen.compute(), expected[0])


def test_calling_it_returns_the_value_of_the_batch_and_accumulates():
    images = noise(4, 3, 6, 5)
    each = (images * WEIGHT).sum((1, 2, 3))
    seen = metric()
    assert_close(seen(images[:1]), each[0])
    assert_close(seen(images[1:]), each[1:].mean())
    assert_close(seen.compute(), each.mean())


def test_processes_are_reduced_by_their_number_of_queries():
    """Every state is gathered, then reduced by the metric's own function, as in torchmetrics."""
    images = noise(5, 3, 6, 5)
    other = metric()
    other.update(images[:2])
    states = {"total": other.total, "count": other.count}

    def gather(state, group=None):
        (name,) = [k for k in states if getattr(seen, k) is state or state.equal(getattr(seen, k))]
        return [state, states[name]]

    seen = metric(dist_sync_fn=gather, distributed_available_fn=lambda: True)
    seen.update(images[2:])
    assert_close(seen.compute(), (images * WEIGHT).sum((1, 2, 3)).mean())
    assert int(seen.count) == 3  # its own again behind the synchronization


def test_the_model_is_neither_saved_nor_moved_nor_copied():
    reward = Odds()
    seen = metric(reward)
    seen.persistent(True)
    assert set(seen.state_dict()) == {"total", "count"}
    assert list(seen.modules()) == [seen]
    assert seen.clone().reward is reward
    assert copy.deepcopy(seen).reward is reward
    assert isinstance(seen, Metric)


def test_a_collection_passes_prompts_on():
    toy = Linear(WEIGHT)
    both = MetricCollection(
        {"reward": RewardMetric(toy), "p": RewardMetric(toy, value="probability")},
        compute_groups=False,
    )
    both.update(noise(2, 3, 6, 5), prompt=["a cat", "a dog"], place="Rome")
    assert set(both.compute()) == {"reward", "p"}
    assert toy.calls[0][1:] == (["a cat", "a dog"], {"place": "Rome"})


def test_pictures_of_all_kinds():
    levels = torch.randint(256, (2, 3, 6, 5), generator=torch.Generator().manual_seed(0))
    arrays = levels.movedim(1, -1).numpy().astype(np.uint8)
    expected = (levels.float() / 255 * WEIGHT.float()).sum((1, 2, 3)).mean()
    lists = [list(levels.float() / 255), [[view] for view in levels.float() / 255]]
    for given in (levels.to(torch.uint8), arrays, [*map(Image.fromarray, arrays)], *lists):
        seen = RewardMetric(Linear(WEIGHT.float()))
        seen.update(given)
        assert_close(seen.compute(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_refused():
    with pytest.raises(TypeError, match="expected a reward"):
        RewardMetric("reward")
    with pytest.raises(ValueError, match="value is 'odds'; expected one of"):
        RewardMetric(Odds(), value="odds")
    with pytest.raises(ValueError, match="dist_sync"):
        RewardMetric(Odds(), dist_sync=True)
    seen = metric(lambda images, prompt=None: images.sum((1, 2, 3)) / 0)
    with pytest.raises(RuntimeError, match="2 of 2 rewards are not finite"):
        seen.update(noise(2, 3, 6, 5))
    assert int(seen.count) == 0
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        metric(lambda images, prompt=None: images.sum()).update(noise(2, 3, 6, 5))
