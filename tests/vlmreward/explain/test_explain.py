"""Attributions against closed forms, and the picture."""

import builtins
import copy
import math

import pytest
import torch
from reference_rewards import Linear, Square, noise, pattern

from vlmreward import YesNoReward, explain
from vlmreward.explain.plot import _captions, _title

close = torch.testing.assert_close


class Sharp:
    """A sigmoid of the mean that rises within a hundredth of the path."""

    def __call__(self, images, prompt=None):
        return torch.sigmoid((images.flatten(1).mean(1) - 0.62) * 2000)


class Views:
    """r = sum over views of weight_v * mean of the view; a fixed number of views, or any."""

    def __init__(self, *weights, strict=False):
        self.weights, self.strict = torch.tensor(weights, dtype=torch.float64), strict

    def __call__(self, images, prompt=None):
        means = images.mean((2, 3, 4))
        if self.strict and means.shape[1] != len(self.weights):
            raise ValueError(f"{means.shape[1]} views; expected {len(self.weights)}")
        return (means * self.weights[: means.shape[1]]).sum(1)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 3, 5, 4)])
def test_saliency_of_a_linear_reward(shape):
    x, weight = noise(*shape), pattern(3, 5, 4)
    length = explain.saliency(Linear(weight), x, kind="gradient-norm")
    close(length, weight.square().sum(0).sqrt().expand(*shape[:-3], 5, 4))
    product = explain.saliency(Linear(weight, bias=3.0), x)
    close(product, (weight * x).sum(-3))
    assert product.min() < 0 < product.max()
    assert not product.requires_grad


def test_saliency_stays_in_its_query():
    x = noise(2, 3, 4, 4)
    alone = explain.saliency(Square(), x[1:])
    close(explain.saliency(Square(), x)[1:], alone)
    close(alone, (2 * x[1:].square()).sum(1))


@pytest.mark.parametrize("baseline", [0.0, 0.5, "mean", "tensor"])
def test_integrated_gradients_of_a_square(baseline):
    """(x - b) times the mean gradient x + b: x^2 - b^2 exactly, value by value."""
    x = noise(2, 3, 5, 4)
    start = {"mean": x.mean((2, 3), keepdim=True), "tensor": noise(3, 1, 1, seed=9)}.get(
        baseline, torch.tensor(baseline if isinstance(baseline, float) else 0.0)
    )
    given = start if baseline == "tensor" else baseline
    path = explain.integrated_gradients(Square(), x, baseline=given)
    close(path.attributions, (x.square() - start.square()).expand_as(x))
    close(path.reward, x.flatten(1).square().sum(1))
    close(path.baseline_reward, start.square().expand_as(x).flatten(1).sum(1).to(x))
    assert path.residual.abs().max() < 1e-12


def test_what_equals_the_baseline_gets_nothing():
    x = noise(1, 3, 6, 6)
    x[..., :3] = 0.5
    path = explain.integrated_gradients(Square(), x)
    assert (path.attributions[..., :3] == 0).all()
    assert (path.attributions[..., 3:] != 0).all()


def test_completeness_where_the_reward_rises_suddenly():
    """A fixed rule with as many nodes would miss most of it."""
    x = torch.full((1, 3, 4, 4), 1.0, dtype=torch.float64)
    found = []

    class Recorded(Sharp):
        def __call__(self, images, prompt=None):
            if torch.is_grad_enabled():
                found.append(float(images.detach().mean()))
            return super().__call__(images)

    path = explain.integrated_gradients(Recorded(), x, baseline=0.0, steps=96)
    rise = path.reward - path.baseline_reward
    close(rise, torch.ones(1, dtype=torch.float64))
    close(path.attributions.sum()[None] + path.residual, rise)
    assert path.residual.abs() < 0.02
    assert len(found) <= 96
    near = [at for at in found if abs(at - 0.62) < 0.02]
    assert len(near) > len(found) / 3
    coarse = explain.integrated_gradients(Sharp(), x, baseline=0.0, steps=8)
    assert coarse.residual.abs() > 0.1


def test_tolerance_says_when_to_stop():
    x = torch.full((1, 3, 4, 4), 1.0, dtype=torch.float64)
    counts = []
    for tolerance in (0.5, 0.01, 0.0):
        reward = Linear(pattern(3, 4, 4))

        def curved(images, reward=reward):
            return torch.sin(30 * images.flatten(1).mean(1)) + 0 * reward(images)

        path = explain.integrated_gradients(curved, x, baseline=0.0, steps=100, tolerance=tolerance)
        counts.append(sum(images.requires_grad for images, _, _ in reward.calls))
        assert path.residual.abs() <= max(tolerance, 1e-3) * path.reward.abs()
    assert counts[0] < counts[1] < counts[2] == 100


def test_steps_are_shared_by_the_queries():
    """Every query is integrated to the tolerance, also if another one is harder."""
    x = torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 0.61)]).double()

    def reward(images):
        return torch.sigmoid((images.flatten(1).mean(1) - 0.6) * 500)

    path = explain.integrated_gradients(reward, x, baseline=0.0)
    rise = path.reward - path.baseline_reward
    assert (path.residual.abs() < 0.021 * rise).all()


def test_views_left_out_or_replaced():
    x = noise(2, 3, 3, 4, 5)
    reward = Views(1.0, 10.0, 100.0)
    means = x.mean((2, 3, 4))
    weights = reward.weights
    gray = explain.leave_one_view_out(reward, x, replacement=0.25)
    close(gray, weights * (means - 0.25))
    close(explain.leave_one_view_out(reward, x, replacement="mean"), torch.zeros_like(gray))
    other = noise(3, 1, 1, seed=4)
    close(
        explain.leave_one_view_out(reward, x, replacement=other),
        weights * (means - other.mean()),
        rtol=1e-9,
        atol=1e-9,
    )
    left = explain.leave_one_view_out(reward, x)
    # Without the first the others move up
    close(left[:, 0], (means * weights).sum(1) - (means[:, 1:] * weights[:2]).sum(1))
    close(left[:, 2], means[:, 2] * 100)
    with pytest.raises(ValueError, match="2 views; expected 3"):
        explain.leave_one_view_out(Views(1.0, 2.0, 3.0, strict=True), x)


def test_single_images_are_queries_of_one_view():
    x = noise(2, 3, 4, 5)
    close(
        explain.leave_one_view_out(Views(2.0), x, replacement=0.5),
        2 * (x.mean((1, 2, 3)) - 0.5)[:, None],
    )
    with pytest.raises(
        ValueError, match=r"replacement is None for queries of one view.*replacement=0.5"
    ):
        explain.leave_one_view_out(Views(2.0), x)
    whole = explain.attribute(Square(), x)
    assert whole.images.shape == (2, 1, 3, 4, 5)
    assert whole.attribution.shape == (2, 1, 4, 5)
    assert whole.views.shape == (2, 1)
    assert whole.replacement == 0.5


@pytest.mark.parametrize("method", explain.METHODS)
def test_an_explanation_holds_all_of_it(method):
    x = noise(2, 3, 3, 6, 5)
    reward = Views(1.0, -2.0, 3.0)
    whole = explain.attribute(reward, x, prompt=["a cat", "a dog"], method=method)
    assert whole.questions == ("a cat", "a dog")
    close(whole.reward, reward(x))
    close(whole.views, explain.leave_one_view_out(reward, x))
    if method == "integrated-gradients":
        path = explain.integrated_gradients(reward, x)
        close(whole.attribution, path.attributions.sum(2))
        close(
            whole.attribution.sum((1, 2, 3)), whole.reward - whole.baseline_reward - whole.residual
        )
    else:
        close(whole.attribution, explain.saliency(reward, x, kind=method))
        assert whole.residual is None
    assert whole.signed == (whole.attribution.min() < 0)


@pytest.mark.parametrize(
    ("views", "method"),
    [(1, "gradient-norm"), (3, "integrated-gradients"), (6, "gradient-x-input")],
)
def test_saves_a_picture(tmp_path, views, method):
    from matplotlib.image import imread

    x = noise(2, views, 3, 24, 32)
    whole = explain.attribute(Linear(pattern(3, 24, 32)), x, prompt="a cat " * 30, method=method)
    path = whole.save(tmp_path / "why.png", query=1)
    picture = imread(path)[..., :3]
    assert path == tmp_path / "why.png"
    assert picture.shape[1] > 130 * 2 * min(views, 4)
    assert picture.std() > 0.05
    # Another query is another picture; without blur it has more contrast
    whole.save(tmp_path / "other.png", query=0)
    assert (tmp_path / "other.png").read_bytes() != path.read_bytes()
    whole.save(tmp_path / "sharp.pdf", blur_sigma=0)
    assert (tmp_path / "sharp.pdf").read_bytes()[:4] == b"%PDF"


def test_the_views_are_in_the_picture(tmp_path):
    """Large patches of the very colors that went in, and of both ends of the heat's scale."""
    from matplotlib.image import imread

    x = torch.zeros(1, 2, 3, 32, 32, dtype=torch.float64)
    x[0, 0, 0], x[0, 1, 2] = 0.8, 0.6
    weight = torch.ones(3, 32, 32, dtype=torch.float64)
    weight[..., 16:] = -1
    whole = explain.attribute(Linear(weight), x, method="gradient-x-input")
    picture = torch.from_numpy(imread(whole.save(tmp_path / "a.png", blur_sigma=0))[..., :3])

    def share(*color):
        return float(((picture - torch.tensor(color)).abs() < 0.02).all(-1).float().mean())

    assert share(0.8, 0, 0) > 0.05
    assert share(0, 0, 0.6) > 0.05
    assert share(0.404, 0, 0.122) > 0.02  # the ends of RdBu
    assert share(0.02, 0.188, 0.38) > 0.02


def test_numbers_in_the_picture():
    x = torch.ones(1, 2, 3, 4, 4, dtype=torch.float64)
    weight = torch.full((3, 4, 4), 1 / 48, dtype=torch.float64)
    whole = explain.attribute(Linear(weight), x, prompt="a cat", baseline=0.25)
    assert _captions(whole, 0, whole.attribution[0]) == ["pixels +0.75\nleft out -1.00"] * 2
    title = _title(whole, 0, 200)
    assert title == (
        "a cat\nlog-odds +2.00, P(Yes) 88%; baseline +0.50; not attributed "
        + f"{float(whole.residual):+.2f}"
    )
    norms = explain.attribute(Linear(weight), x, method="gradient-norm", replacement=0.5)
    assert _captions(norms, 0, norms.attribution[0]) == ["pixels 50%\nblanked -0.50"] * 2
    assert norms.questions == ("",)


def test_without_matplotlib_it_says_so(tmp_path, monkeypatch):
    whole = explain.attribute(Square(), noise(1, 3, 8, 8))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'vlmreward\[3d\]'"):
        whole.save(tmp_path / "a.png")


def test_refuses():
    x = noise(2, 3, 4, 4)
    with pytest.raises(TypeError, match="images is a list; expected a tensor"):
        explain.attribute(Square(), [x[0]])
    with pytest.raises(ValueError, match="images have values"):
        explain.saliency(Square(), 255 * x)
    with pytest.raises(ValueError, match="kind is 'gradient'"):
        explain.saliency(Square(), x, kind="gradient")
    with pytest.raises(ValueError, match="method is 'shap'"):
        explain.attribute(Square(), x, method="shap")
    with pytest.raises(ValueError, match="steps is 2"):
        explain.integrated_gradients(Square(), x, steps=2)
    with pytest.raises(ValueError, match="tolerance is -1"):
        explain.integrated_gradients(Square(), x, tolerance=-1)
    for baseline, message in (
        (2.0, "a baseline is 2.0"),
        ("blur", "a baseline is 'blur'"),
        (torch.zeros(5), r"shape \(5,\).*broadcasts"),
        (torch.full((3, 1, 1), 7.0), "images have values"),
    ):
        with pytest.raises(ValueError, match=message):
            explain.integrated_gradients(Square(), x, baseline=baseline)
    with pytest.raises(RuntimeError, match="without a graph"):
        explain.saliency(lambda images: images.detach().flatten(1).sum(1), x)
    with pytest.raises(ValueError, match="query is 2; expected below 2"):
        explain.attribute(Square(), x).save("never.png", query=2)


def test_a_vlm_explained(pair):
    """Completeness with a real architecture; views that are left out are really not there."""
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), question="Is there {prompt}?")
    x = noise(1, 2, 3, 56, 56, dtype=torch.float32)
    x[:, 1] = 1 - x[:, 0] * 0.9
    whole = explain.attribute(reward, x, prompt="a cat", steps=48)
    rise = whole.reward - whole.baseline_reward
    assert rise.abs() > 0.05
    assert whole.residual.abs() < 0.05 * rise.abs()
    assert (whole.attribution.flatten(2).abs().sum(2) > 1e-3).all()
    assert whole.questions == ("a cat",)
    with torch.no_grad():
        left = [reward(x[:, [1]], prompt="a cat"), reward(x[:, [0]], prompt="a cat")]
    close(whole.views, whole.reward[:, None] - torch.stack(left, 1), atol=1e-4, rtol=0)
    assert math.isfinite(whole.views.sum())
