"""Views that mislead a model, for adversarial training."""

import pytest
import torch

from vlmreward_3d.blocks.training.adversary import mislead

RADIUS = 0.7


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Tanh(), torch.nn.Conv2d(8, 1, 3))


def misled(model, images, seed=0, radius=RADIUS):
    def loss(views):
        return model(views.flatten(0, 1)).sum()

    generator = torch.Generator().manual_seed(seed)
    return mislead(model, images, loss, radius, generator), loss


def test_views_stay_near_their_originals_and_raise_the_loss(model):
    images = 0.3 + 0.4 * torch.rand(12, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found, loss = misled(model, images)
    distances = (found - images).flatten(2).norm(dim=2)
    assert found.shape == images.shape
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    assert distances.max() <= RADIUS * (1 + 1e-5)
    # each scene has a radius of its own, and uses all of it where the loss is nearly linear
    torch.testing.assert_close(distances, distances[:, :1].expand_as(distances), rtol=1e-3, atol=0)
    moved = distances[:, 0] > 0
    assert distances[moved, 0].unique().numel() == moved.sum()
    # some scenes stay as they are, to the last bit, and most do not
    assert torch.equal(found[~moved], images[~moved])
    assert 0 < (~moved).sum() < len(images) / 2
    step = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    step = (
        step / step.flatten(2).norm(dim=2)[..., None, None, None] * distances[..., None, None, None]
    )
    gain = loss(found) - loss(images)
    assert gain > 3 * (loss(images + step) - loss(images)).abs()
    # a linear loss would rise by at most the length of its gradient
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    best = (slope.flatten(2).norm(dim=2) * distances).sum()
    assert gain.item() == pytest.approx(best.item(), rel=0.1)


def test_the_model_is_left_as_it_was(model):
    images = torch.rand(2, 1, 3, 16, 16)
    misled(model, images)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())

    def broken(_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        mislead(model, images, broken, 1.0, torch.Generator())
    assert all(p.requires_grad for p in model.parameters())


def test_draws_follow_the_generator(model):
    images = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    (first, _), (again, _), (other, _) = (misled(model, images, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
