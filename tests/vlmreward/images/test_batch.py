"""Batches of images: taken apart, cut, put together, and what is known of their values."""

import pytest
import torch
from reference_rewards import noise

from vlmreward.images.batch import ImageBatch, concatenate
from vlmreward.images.validation import flatten_views, sizes_of

LAYOUTS = {
    "one image a query": noise(3, 3, 4, 5),
    "views": noise(3, 2, 3, 4, 5),
    "sizes": [noise(3, 4, 5), noise(3, 6, 4), noise(3, 2, 2)],
    "lists": [[noise(3, 4, 5), noise(3, 6, 4)], noise(2, 3, 4, 4), noise(3, 2, 2)],
}
layouts = pytest.mark.parametrize("images", LAYOUTS.values(), ids=LAYOUTS)


def same(ours, theirs):
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
        return
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        same(one, other)


@layouts
def test_views_and_sizes_are_those_of_the_checks(images):
    batch = ImageBatch.of(images)
    views, counts = flatten_views(images)
    same(batch.images, images)
    same(batch.views, views)
    assert len(batch) == 3
    assert batch.counts == counts
    assert batch.sizes == sizes_of(views, counts)
    assert ImageBatch.of(batch) is batch


@layouts
@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 3), slice(2, 9), slice(None)])
def test_slices(images, part):
    batch = ImageBatch.of(images)[part]
    same(batch.images, images[part])
    assert batch.counts == flatten_views(images)[1][part]


@layouts
def test_batches_behind_each_other(images):
    batch = ImageBatch.of(images)
    both = concatenate([batch, batch.with_tensors([t / 2 for t in batch.tensors])])
    same(both[:3].images, images)
    same(both[3:].images, batch.with_tensors([t / 2 for t in batch.tensors]).images)


def test_values_are_looked_at_once_for_the_same_pixels(monkeypatch):
    looked_at = []
    monkeypatch.setattr("vlmreward.images.batch.check_values", looked_at.append)
    batch = ImageBatch.of(noise(2, 3, 4, 4))
    again = batch.with_tensors([batch.tensors[0].clone()], same_values=True)
    for same_pixels in (batch, again, batch.detach()):
        same_pixels.check_values()
    batch[:1].check_values()
    assert len(looked_at) == 1
    batch.with_tensors([batch.tensors[0] + 9]).check_values()
    assert len(looked_at) == 2


def test_values_of_a_part_say_nothing_of_the_others():
    images = noise(2, 3, 4, 4)
    images[1, 0, 0, 0] = torch.nan
    batch = ImageBatch.of(images)
    batch[:1].check_values()
    with pytest.raises(ValueError, match="NaN"):
        batch.check_values()
