"""Wrappers around rewards, against closed forms and against the mean written out."""

import copy
import warnings
import weakref

import kornia.augmentation as K
import pytest
import torch
from reference_rewards import Linear, Square, noise, pattern

from vlmreward import QuestionTemplate, YesNoReward
from vlmreward.images.filters import smooth
from vlmreward.wrappers import (
    Ensemble,
    ExpectationOverTransformations,
    GradientBlur,
    HeldOutMonitor,
    QuestionEnsemble,
    RewardHackingWarning,
    blur_gradient,
    standard_augmentation,
)
from vlmreward.wrappers.trend import mann_kendall

close = torch.testing.assert_close


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gradient(reward, images, factors=None, **placeholders):
    """Value, and gradient at the images of its sum times factors."""
    x = images.detach().clone().requires_grad_()
    values = reward(x, **placeholders)
    (values if factors is None else values * factors).sum().backward()
    return values.detach(), x.grad


# ExpectationOverTransformations


class Scaled(torch.nn.Module):
    """Each image times a factor of its own in [0.5, 1]; remembers the factors."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, x):
        factors = 0.5 + 0.5 * torch.rand(len(x), 1, 1, 1, dtype=x.dtype)
        self.drawn.append(factors.flatten())
        return x * factors


def test_value_and_gradient_are_those_of_the_mean_over_the_samples():
    """r = |s x|^2 with random s: mean s^2 |x|^2 and 2 mean(s^2) x, query by query."""
    x, scaled = noise(3, 3, 5, 4), Scaled()
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    values, grad = gradient(
        ExpectationOverTransformations(Square(), scaled, num_samples=6), x, factors
    )
    squares = torch.stack(scaled.drawn).square()
    assert squares.shape == (6, 3)
    assert squares.unique().numel() == 18
    mean = squares.mean(0)
    close(values, mean * x.flatten(1).square().sum(1))
    close(grad, (2 * factors * mean).view(3, 1, 1, 1) * x)


def test_tends_to_the_expectation():
    """E |x + n|^2 = |x|^2 + N sigma^2 for Gaussian noise n of N values."""
    x, sigma = noise(1, 3, 8, 8), 0.05
    reward = ExpectationOverTransformations(
        Square(),
        lambda y: y + sigma * torch.randn_like(y),
        num_samples=400,
        micro_batch_size=50,
        generator=seeded(),
    )
    values, grad = gradient(reward, x)
    expected = x.square().sum() + x.numel() * sigma**2
    assert abs(values.item() - expected) < 4 * 2 * sigma * x.norm() / 400**0.5
    assert (grad - 2 * x).abs().max() < 5 * 2 * sigma / 400**0.5
    assert (grad - 2 * x).abs().max() > 1e-4


@pytest.mark.parametrize("chunk", [2, 3, 5])
@pytest.mark.parametrize("shape", [(2, 3, 16, 12), (2, 4, 3, 16, 12)])
def test_chunks_change_nothing(chunk, shape):
    x, weight = noise(*shape), pattern(3, 16, 12)
    factors = torch.tensor([2.0, -1.0], dtype=torch.float64)

    def run(chunk):
        generator = seeded(7)
        reward = ExpectationOverTransformations(
            Linear(weight), num_samples=5, micro_batch_size=chunk, generator=generator
        )
        return gradient(reward, x, factors)

    for ours, alone in zip(run(chunk), run(1)):
        close(ours, alone)


def test_lists_of_texts_follow_the_samples():
    """Every repetition of the batch is asked with the same prompts."""
    inner = Linear(torch.zeros(3, 8, 8, dtype=torch.float64))
    reward = ExpectationOverTransformations(inner, num_samples=3, micro_batch_size=2)
    reward(noise(2, 3, 8, 8), prompt=["a", "b"], style="c", other=["d", "e"])
    prompts = [(prompt, placeholders) for _, prompt, placeholders in inner.calls]
    assert prompts == [
        (["a", "b", "a", "b"], {"style": "c", "other": ["d", "e", "d", "e"]}),
        (["a", "b"], {"style": "c", "other": ["d", "e"]}),
    ]


@pytest.mark.parametrize("chunk", [1, 2, 6])
def test_one_graph_at_a_time(chunk):
    class Token:
        pass

    alive, peak = weakref.WeakSet(), []

    class Counted(torch.autograd.Function):
        """Its context lives as long as the graph, and is as large as the batch."""

        @staticmethod
        def forward(ctx, x):
            ctx.tokens = [Token() for _ in x]
            alive.update(ctx.tokens)
            peak.append(len(alive))
            return x.flatten(1).sum(1)

        @staticmethod
        def backward(ctx, grad):
            return grad.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)

    x = noise(1, 3, 8, 8).requires_grad_()
    ExpectationOverTransformations(Counted.apply, num_samples=6, micro_batch_size=chunk)(
        x
    ).sum().backward()
    assert peak == [chunk] * (6 // chunk)


def test_under_no_grad_no_gradient_is_taken():
    class Never(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.flatten(1).sum(1)

        @staticmethod
        def backward(ctx, grad):
            raise AssertionError("a backward pass")

    x = noise(2, 3, 8, 8).requires_grad_()
    reward = ExpectationOverTransformations(Never.apply, lambda y: y, num_samples=2)
    with torch.no_grad():
        close(reward(x), x.flatten(1).sum(1))
    with pytest.raises(AssertionError, match="backward"):
        reward(x)


@pytest.mark.parametrize("augmentation", [None, K.RandomAffine(30.0, translate=(0.2, 0.2), p=1.0)])
def test_one_transformation_for_all_views_or_one_each(augmentation):
    view = noise(2, 1, 3, 16, 16)
    x = torch.cat([view, view, 1 - view], 1)
    together = ExpectationOverTransformations(Square(), augmentation, generator=seeded(1)).augment(
        x
    )
    assert torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(together[0, 0] - x[0, 0], together[1, 0] - x[1, 0])
    each = ExpectationOverTransformations(
        Square(), augmentation, share_across_views=False, generator=seeded(1)
    ).augment(x)
    assert (each[:, 0] - each[:, 1]).abs().amax((1, 2, 3)).min() > 0.05


def test_lists_keep_their_layout():
    tall, wide = noise(3, 20, 12), noise(3, 12, 20)
    images = [[tall, tall.clone()], torch.stack([wide, wide]), tall]
    scaled = Scaled()
    out = ExpectationOverTransformations(Linear(0), scaled, generator=seeded()).augment(images)
    assert [type(query) for query in out] == [list, torch.Tensor, torch.Tensor]
    assert [len(out[0]), out[1].shape, out[2].shape] == [2, (2, 3, 12, 20), (3, 20, 12)]
    factors = torch.cat(scaled.drawn)
    assert factors[0] == factors[1]
    assert factors[2] == factors[3]
    assert factors.unique().numel() == 3
    close(out[1], factors[2] * images[1])


def test_gradients_of_lists():
    weight = pattern(3, 6, 6)
    leaves = [noise(3, 6, 6, seed=i).requires_grad_() for i in range(3)]
    scaled = Scaled()
    values = ExpectationOverTransformations(Linear(weight), scaled, num_samples=2)(
        [[leaves[0], leaves[1]], [leaves[2]]]
    )
    values.backward(torch.tensor([1.0, 3.0], dtype=torch.float64))
    factors = torch.cat(scaled.drawn).view(2, 3).mean(0)
    for leaf, factor, behind in zip(leaves, factors, [1, 1, 3]):
        close(leaf.grad, behind * factor * weight)


def test_repeatable_and_leaves_the_global_generator_alone():
    x = noise(1, 2, 3, 16, 16)
    reward = ExpectationOverTransformations(Square(), generator=seeded(3))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = reward(x), reward(x)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, second)
    close(ExpectationOverTransformations(Square(), generator=seeded(3))(x), first, rtol=0, atol=0)
    free = ExpectationOverTransformations(Square())
    torch.manual_seed(5)
    third = free(x)
    torch.manual_seed(5)
    assert torch.equal(free(x), third)
    assert not torch.equal(free(x), third)


def test_what_is_seen_lies_in_the_range_whatever_the_augmentation():
    x = noise(2, 3, 8, 8)
    out = ExpectationOverTransformations(Square(), lambda y: 3 * y - 1).augment(x)
    close(out, (3 * x - 1).clamp(0, 1))
    assert out.min() == 0
    assert out.max() == 1
    strong = ExpectationOverTransformations(Square(), standard_augmentation(3), generator=seeded())
    extremes = torch.rand(8, 3, 32, 32, generator=seeded()).round()
    seen = strong.augment(extremes)
    assert 0 <= seen.min() < seen.max() <= 1


def test_standard_augmentation_is_mild_and_changes_every_image():
    x = torch.zeros(8, 3, 64, 64)
    x[:, 0, 20:44, 20:44] = 0.8
    x[:, 1:] = 0.3
    out = ExpectationOverTransformations(Square(), generator=seeded()).augment(x)
    change = (out - x).abs().mean((1, 2, 3))
    assert (change > 0.005).all()
    assert (change < 0.15).all()
    corners = out[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[:, 1:].min() > 0.15  # the border goes on; black corners would be 0
    inside = out[:, 0, 30:34, 30:34].mean((1, 2))
    assert ((inside - 0.8).abs() < 0.25).all()


def test_half_precision_images_get_their_dtype_back():
    x = noise(1, 3, 16, 16).to(torch.bfloat16).requires_grad_()
    seen = []

    def reward(images):
        seen.append(images.dtype)
        return images.float().flatten(1).sum(1)

    values = ExpectationOverTransformations(reward, num_samples=3)(x)
    values.sum().backward()
    assert seen == [torch.bfloat16] * 3
    assert x.grad.dtype == torch.bfloat16
    assert values.dtype == torch.float32


def test_augmented_refuses():
    with pytest.raises(ValueError, match="num_samples is 0"):
        ExpectationOverTransformations(Square(), num_samples=0)
    with pytest.raises(ValueError, match="micro_batch_size is 0"):
        ExpectationOverTransformations(Square(), micro_batch_size=0)
    with pytest.raises(ValueError, match="strength is -1"):
        standard_augmentation(-1)
    x = noise(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"augmentation returned \(2, 1, 8, 8\).*expected"):
        ExpectationOverTransformations(Square(), lambda y: y[:, :1])(x)
    with pytest.raises(ValueError, match=r"reward returned shape \(\); expected \(2,\)"):
        ExpectationOverTransformations(lambda images: images.sum())(x)
    with pytest.raises(RuntimeError, match="without a graph"):
        ExpectationOverTransformations(lambda images: images.detach().flatten(1).sum(1))(
            x.requires_grad_()
        )
    with pytest.raises(ValueError, match=r"images has shape \(3, 8, 8\)"):
        ExpectationOverTransformations(Square())(x[0])


@pytest.mark.parametrize(
    ("reward", "remedy"),
    [
        (
            ExpectationOverTransformations(Square(), lambda y: y, num_samples=2),
            "micro_batch_size=num_samples",
        ),
        (Ensemble([Square()], balance="gradient-norm"), "balance=None"),
    ],
)
def test_second_derivatives_are_refused_or_right(reward, remedy):
    x = noise(1, 3, 4, 4).requires_grad_()
    with pytest.raises(RuntimeError, match=f"create_graph=False.*{remedy}"):
        torch.autograd.grad(reward(x).sum(), x, create_graph=True)
    plain = GradientBlur(
        ExpectationOverTransformations(
            Ensemble([Square()]), lambda y: y, num_samples=2, micro_batch_size=2
        ),
        sigma=1.0,
    )
    (grad,) = torch.autograd.grad(plain(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad[0, 0, 1, 1], x)
    point = torch.zeros_like(x)
    point[0, 0, 1, 1] = 2
    close(second, smooth(smooth(point, 1.0), 1.0))


# QuestionEnsemble


class Asked:
    """A reward by its question: the prompts' total length, + 1 for every pixel's value."""

    def __init__(self, question="{prompt}?"):
        self.question = QuestionTemplate(question)

    def __call__(self, images, prompt):
        prompts = [prompt] * len(images) if isinstance(prompt, str) else prompt
        lengths = [float(len(self.question.format(prompt=t))) for t in prompts]
        sign = -1 if "no " in self.question.template else 1
        return torch.tensor(lengths) * sign + sign * images.flatten(1).sum(1)


def test_mean_over_wordings():
    reward, x = Asked(), noise(2, 3, 4, 4)
    questions = {"short": "{prompt}?", "long": "Is this {prompt}?"}
    both = QuestionEnsemble(reward, questions)
    prompts = ["cat", "mouse"]
    each = both.per_reward(x, prompts)
    assert list(each) == list(both.names) == ["short", "long"]
    total = x.flatten(1).sum(1)
    close(each["short"], total + torch.tensor([4.0, 6.0]))
    close(each["long"], total + torch.tensor([12.0, 14.0]))
    close(both(x, prompts), total + torch.tensor([8.0, 10.0]))
    assert reward.question == QuestionTemplate("{prompt}?")
    close(gradient(both, x, prompt=prompts)[1], torch.ones_like(x))


def test_negated_questions_cancel_what_a_model_says_to_everything():
    class Biased(Asked):
        def __call__(self, images, prompt):
            says = -1 if "no " in self.question.template else 1
            return 100 + says * images.flatten(1).sum(1)

    x = noise(2, 3, 4, 4)
    reward = QuestionEnsemble(
        Biased(), ["Is there {prompt}?", "{prompt}?"], negated_questions=["Is there no {prompt}?"]
    )
    assert reward.names == ("0", "1", "not 0")
    close(reward(x, prompt="cat"), x.flatten(1).sum(1))
    close(reward.per_reward(x, prompt="cat")["not 0"], 100 - x.flatten(1).sum(1))
    close(gradient(reward, x, prompt="cat")[1], torch.ones_like(x))


def test_paraphrased_refuses():
    with pytest.raises(TypeError, match=r"Square without a question.*Ensemble"):
        QuestionEnsemble(Square(), ["{prompt}?"])
    with pytest.raises(ValueError, match="questions is empty"):
        QuestionEnsemble(Asked(), [])
    with pytest.raises(TypeError, match="questions is a str"):
        QuestionEnsemble(Asked(), "{prompt}?")
    with pytest.raises(TypeError, match="question is a int; expected a QuestionTemplate"):
        QuestionEnsemble(Asked(), [3])
    with pytest.raises(ValueError, match="share the name 'a'"):
        QuestionEnsemble(Asked(), {"a": "{prompt}?"}, negated_questions={"a": "no {prompt}?"})
    with pytest.raises(
        ValueError, match=r"question '1' has placeholders \('color',\).*\('prompt',\)"
    ):
        QuestionEnsemble(Asked(), ["{prompt}?", "{color}?"])


# Ensemble


def linears(*scales, size=6):
    return [Linear(scale * pattern(3, size, size, seed=i)) for i, scale in enumerate(scales)]


def norm(weight):
    return weight.flatten().norm()


def test_plain_ensemble_is_the_weighted_mean():
    a, b = linears(1.0, 100.0)
    x = noise(2, 3, 6, 6)
    values, grad = gradient(Ensemble([a, b], weights=[3, 1]), x)
    close(values, 0.75 * a(x) + 0.25 * b(x))
    close(grad, (0.75 * a.weight + 0.25 * b.weight).expand(2, 3, 6, 6))


@pytest.mark.parametrize("views", [None, 3])
def test_balanced_gradients_are_equally_long(views):
    """Sum of w_k times unit vectors, as long as the plain mean of the norms."""
    a, b = linears(1.0, 100.0)
    x = noise(2, 3, 6, 6) if views is None else noise(2, views, 3, 6, 6)
    behind = torch.tensor([1.0, -5.0], dtype=torch.float64)
    reward = Ensemble({"a": a, "b": b}, balance="gradient-norm", weights={"b": 1, "a": 3})
    values, grad = gradient(reward, x, behind)
    close(values, 0.75 * a(x) + 0.25 * b(x))  # the value is the plain one
    mean = 0.75 * norm(a.weight) + 0.25 * norm(b.weight)
    unit = 0.75 * a.weight / norm(a.weight) + 0.25 * b.weight / norm(b.weight)
    shape = (2, *[1] * (x.ndim - 1))
    close(grad, behind.view(shape) * (mean * unit).expand(x.shape))
    assert list(reward.per_reward(x)) == ["a", "b"]
    close(reward.per_reward(x)["b"], b(x))


def test_members_that_agree_in_norm_give_the_plain_gradient():
    a, b = linears(1.0, 1.0)
    b.weight = b.weight * (norm(a.weight) / norm(b.weight))
    x = noise(1, 3, 6, 6)
    close(
        gradient(Ensemble([a, b], balance="gradient-norm"), x)[1],
        gradient(Ensemble([a, b]), x)[1],
    )


def test_balance_is_query_by_query_also_in_lists():
    a, square = (
        Linear(pattern(3, 6, 6)),
        lambda q: torch.stack([sum(i.square().sum() for i in v) for v in q]),
    )
    leaves = [noise(3, 6, 6, seed=i).requires_grad_() for i in range(3)]
    queries = [[leaves[0], leaves[1]], [leaves[2]]]
    Ensemble([a, square], balance="gradient-norm")(queries).sum().backward()
    for views in queries:
        x = torch.stack([v.detach() for v in views])
        weight = a.weight.expand_as(x)
        mean = (norm(weight) + norm(2 * x)) / 2
        expected = mean * (weight / norm(weight) + 2 * x / norm(2 * x)) / 2
        close(torch.stack([v.grad for v in views]), expected)


def test_a_member_without_gradient_adds_nothing():
    a, dead = Linear(pattern(3, 6, 6)), Linear(torch.zeros(3, 6, 6, dtype=torch.float64))
    x = noise(1, 3, 6, 6)
    _, grad = gradient(Ensemble([a, dead], balance="gradient-norm"), x)
    close(grad[0], a.weight / 4)  # its weight 1/2, and the mean norm is half of its own
    _, grad = gradient(Ensemble([dead, dead], balance="gradient-norm"), x)
    close(grad, torch.zeros_like(x))


def test_nan_is_not_hidden():
    a, bad = linears(1.0, float("nan"))
    _, grad = gradient(Ensemble([a, bad], balance="gradient-norm"), noise(1, 3, 6, 6))
    assert grad.isnan().all()


def test_running_balance_follows_slowly():
    """A member that becomes ten times weaker is amplified by what the running mean has learnt."""
    a, b = linears(1.0, 1.0)
    b.weight = b.weight * (norm(a.weight) / norm(b.weight))
    reward = Ensemble([a, b], balance="gradient-norm", momentum=0.5).double()
    x = noise(1, 3, 6, 6)
    gradient(reward, x)
    close(reward.shares, torch.ones(2, dtype=torch.float64))
    gradient(reward, x, factors=1000.0)  # the scale of what comes from behind does not matter
    close(reward.shares, torch.ones(2, dtype=torch.float64))
    b.weight = b.weight / 10
    _, grad = gradient(reward, x)
    now = torch.tensor([1, 0.1], dtype=torch.float64) / 0.55
    expected = (1 + now) / 2
    close(reward.shares, expected)
    close(grad[0], (a.weight / expected[0] + b.weight / expected[1]) / 2)
    other = Ensemble([a, b], balance="gradient-norm", momentum=0.5).double()
    other.load_state_dict(reward.state_dict())
    close(gradient(other, x)[1], gradient(reward, x)[1])


def test_ensemble_refuses():
    a, b = linears(1.0, 1.0)
    for weights in ([1], [1, 0], [1, -1], [1, float("inf")], [1, float("nan")]):
        with pytest.raises(ValueError, match=r"1 weights; expected 2|expected a finite number > 0"):
            Ensemble([a, b], weights=weights)
    with pytest.raises(ValueError, match=r"weights are for \['c'\]"):
        Ensemble({"a": a, "b": b}, weights={"c": 1})
    with pytest.raises(ValueError, match="balance is 'norm'"):
        Ensemble([a], balance="norm")
    with pytest.raises(ValueError, match="momentum is 1"):
        Ensemble([a], momentum=1)
    with pytest.raises(ValueError, match="rewards is empty"):
        Ensemble([])
    with pytest.raises(TypeError, match="returned a float"):
        Ensemble([lambda images: 1.0])(noise(1, 3, 6, 6))


# Low pass


@pytest.mark.parametrize("sigma", [0.4, 1.5, 6.0])
def test_blur_is_symmetric_positive_and_keeps_sums(sigma):
    height, width = 7, 5
    basis = torch.eye(height * width, dtype=torch.float64).view(-1, height, width)
    matrix = smooth(basis, sigma).flatten(1)
    close(matrix, matrix.T)
    close(matrix.sum(0), torch.ones(height * width, dtype=torch.float64))
    assert torch.linalg.eigvalsh(matrix).min() > -1e-12
    x, y = pattern(2, 3, 9, 31), pattern(2, 3, 9, 31, seed=1)
    close((smooth(x, sigma) * y).sum(), (x * smooth(y, sigma)).sum())


def test_blur_has_the_width_asked_for():
    point = torch.zeros(1, 101, 101, dtype=torch.float64)
    point[0, 50, 50] = 1
    spread = smooth(point, 4.0)[0].sum(0)
    at = torch.arange(101) - 50.0
    assert abs((spread * at**2).sum().sqrt() - 4.0) < 0.1


@pytest.mark.parametrize("shape", [(2, 3, 12, 9), (2, 4, 3, 12, 9)])
def test_identity_forward_and_blur_backward(shape):
    x, weight = noise(*shape), pattern(3, 12, 9)
    values, grad = gradient(GradientBlur(Linear(weight), sigma=2.0), x)
    assert torch.equal(values, Linear(weight)(x))
    close(grad, smooth(weight, 2.0).expand(shape))
    assert torch.equal(blur_gradient(x, 2.0), x)


def test_low_pass_of_lists_and_of_half_precision():
    leaf, other = noise(3, 8, 8).requires_grad_(), noise(3, 6, 9).requires_grad_()
    out = blur_gradient([[leaf, other], [leaf]], 1.0)
    assert [len(query) for query in out] == [2, 1]
    (out[0][0][0, 3, 3] + out[1][0][0, 3, 3]).backward()
    assert leaf.grad.sum() == pytest.approx(2)
    assert leaf.grad[0, 3, 4] > 0.1
    assert smooth(torch.rand(3, 8, 8).bfloat16(), 1.0).dtype == torch.bfloat16


def test_low_pass_refuses():
    for sigma in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="sigma is"):
            GradientBlur(Square(), sigma=sigma)
        with pytest.raises(ValueError, match="sigma is"):
            blur_gradient(noise(1, 3, 8, 8), sigma)


# HeldOutMonitor


class Script:
    """Returns one prepared value after the other."""

    def __init__(self, values):
        self.values = list(values)
        self.asked = []

    def __call__(self, images, prompt=None):
        self.asked.append((torch.is_grad_enabled(), images.requires_grad, prompt))
        return self.values.pop(0) + 0 * images.flatten(1).sum(1)


def watch(rising, held_out, **options):
    """The steps at which a warning was given."""
    watched = HeldOutMonitor(Script(rising), Script(held_out), every=1, **options)
    x = noise(1, 3, 4, 4).requires_grad_()
    steps = []
    for step in range(len(rising)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watched(x)
        steps += [step] * len(caught)
        assert all(w.category is RewardHackingWarning for w in caught)
    return steps, watched


def test_mann_kendall_in_closed_form():
    n = 10
    deviation = (n * (n - 1) * (2 * n + 5) / 18) ** 0.5
    assert mann_kendall(range(n)) == pytest.approx((n * (n - 1) / 2 - 1) / deviation)
    assert mann_kendall(range(n, 0, -1)) == pytest.approx(-(n * (n - 1) / 2 - 1) / deviation)
    assert mann_kendall([1, 1, 1]) == mann_kendall([1]) == mann_kendall([]) == 0
    # Two groups of ties: S = 4, variance 4*3*13/18 - 2 * (2*1*9/18)
    assert mann_kendall([0, 0, 1, 1]) == pytest.approx(3 / (156 / 18 - 2) ** 0.5)


def test_warns_once_when_the_two_part_ways():
    up = [float(i) for i in range(30)]
    steps, watched = watch(up, [-v for v in up], window=10)
    assert steps == [9]
    assert watched.warned


def test_does_not_warn_otherwise():
    up = [float(i) for i in range(30)]
    down = [-v for v in up]
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(30, generator=generator).tolist()
    for first, second in ((up, up), (down, down), (down, up), (up, [1.0] * 30), (random, down)):
        assert watch(first, second, window=10)[0] == []


def test_warns_again_in_another_episode():
    up = [float(i) for i in range(60)]
    held_out = [-float(i) for i in range(20)] + [float(i) for i in range(20)]
    held_out += [19.0 - i for i in range(20)]
    steps, _ = watch(up, held_out, window=10)
    assert len(steps) == 2
    assert steps[0] == 9
    assert 40 < steps[1] < 50


def test_noise_within_an_episode_does_not_warn_again():
    up = [float(i) for i in range(40)]
    held_out = [-float(i) for i in range(40)]
    for i in range(15, 40, 4):  # enough to fall short of the level, not enough to turn round
        held_out[i] += 9
    steps, watched = watch(up, held_out, window=8)
    assert steps == [7]
    scores = [
        mann_kendall([seen.held_out for seen in watched.history[i - 8 : i]]) for i in range(8, 41)
    ]
    assert any(-watched.threshold < score < 0 for score in scores)


def test_held_out_is_asked_rarely_and_without_gradients():
    inner, held_out = Square(), Script([0.0] * 10)
    watched = HeldOutMonitor(inner, held_out, every=3)
    x = noise(2, 3, 4, 4)
    for _ in range(7):
        values, grad = gradient(watched, x, prompt="cat")
        close(values, x.flatten(1).square().sum(1))
        close(grad, 2 * x)
    with torch.no_grad():
        watched(x)
    assert held_out.asked == [(False, False, "cat")] * 3
    assert [seen.step for seen in watched.history] == [0, 3, 6]
    assert watched.step == 7
    assert watched.history[0].reward == pytest.approx(x.square().sum().item() / 2)


def test_watching_draws_no_random_numbers():
    watched = HeldOutMonitor(Square(), lambda images: torch.rand(len(images)))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    watched(noise(1, 3, 4, 4).requires_grad_())
    assert torch.equal(before, torch.get_rng_state())


def test_the_warning_points_at_the_call():
    up = [float(i) for i in range(10)]
    watched = HeldOutMonitor(Script(up), Script([-v for v in up]), every=1, window=10)
    x = noise(1, 3, 4, 4).requires_grad_()
    for _ in up[1:]:
        watched(x)
    with pytest.warns(
        RewardHackingWarning, match=r"step 9.*from 0 to 9 .*from -?0 to -9"
    ) as caught:
        watched(x)
    assert caught[0].filename == __file__


def test_watching_goes_on_from_its_state():
    up = [float(i) for i in range(12)]
    _, watched = watch(up, [-v for v in up], window=10)
    other = HeldOutMonitor(Script([12.0]), Script([-12.0]), every=1, window=10)
    other.load_state_dict(copy.deepcopy(watched.state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other(noise(1, 3, 4, 4).requires_grad_())
    assert [seen.step for seen in other.history] == list(range(13))


def test_watched_refuses():
    with pytest.raises(ValueError, match="every is 0"):
        HeldOutMonitor(Square(), Square(), every=0)
    with pytest.raises(ValueError, match="window is 5"):
        HeldOutMonitor(Square(), Square(), window=5)
    with pytest.raises(ValueError, match=r"significance is 0.7"):
        HeldOutMonitor(Square(), Square(), significance=0.7)


# Together, with a VLM


@pytest.fixture(scope="module")
def vlm(pair):
    return YesNoReward((copy.deepcopy(pair[0]), pair[1]), question="Is there {prompt}?")


def test_paraphrased_vlm_equals_rewards_of_their_own(pair, vlm):
    questions = ["Is there {prompt}?", "Does this image show {prompt}? Yes or No."]
    against = "Is there no {prompt}?"
    x = noise(2, 3, 60, 64, dtype=torch.float32)
    prompts = ["a cat", "a red cube"]
    alone = [
        YesNoReward((vlm.backbone.vlm, pair[1]), question=p)(x, prompt=prompts)
        for p in (*questions, against)
    ]
    paraphrased = QuestionEnsemble(vlm, questions, negated_questions=[against])
    got = paraphrased(x, prompt=prompts)
    close(got, ((alone[0] + alone[1]) / 2 - alone[2]) / 2, atol=1e-5, rtol=1e-5)
    assert (got - alone[0]).abs().min() > 1e-3
    parameters = sum(p.numel() for p in paraphrased.parameters())
    assert parameters == sum(p.numel() for p in vlm.parameters())


def test_all_of_them_around_a_vlm(vlm):
    def build(chunk):
        reward = Ensemble(
            [vlm, QuestionEnsemble(vlm, ["Yes or No: {prompt}?"])], balance="gradient-norm"
        )
        reward = ExpectationOverTransformations(
            GradientBlur(reward), num_samples=2, micro_batch_size=chunk, generator=seeded(2)
        )
        return HeldOutMonitor(reward, vlm, every=1)

    x = noise(2, 2, 3, 56, 60, dtype=torch.float32)
    values, grad = gradient(build(1), x, prompt=["a cat", "a dog"])
    assert values.shape == (2,)
    assert (grad.flatten(2).norm(dim=2) > 1e-4).all()
    again = gradient(build(2), x, prompt=["a cat", "a dog"])
    close(again[0], values, atol=1e-4, rtol=1e-4)
    close(again[1], grad, atol=1e-5 + 1e-3 * grad.abs().max().item(), rtol=0)
    # A step along the gradient raises what it is the gradient of
    plain = ExpectationOverTransformations(
        GradientBlur(vlm, 1.0), num_samples=2, generator=seeded(2)
    )
    before, slope = gradient(plain, x, prompt="a cat")
    raised = ExpectationOverTransformations(vlm, num_samples=2, generator=seeded(2))
    with torch.no_grad():
        after = raised(x + 1e-3 * slope / slope.norm(), prompt="a cat")
    assert after.sum() > before.sum()


def test_wrappers_can_be_copied_and_moved(vlm):
    reward = ExpectationOverTransformations(
        QuestionEnsemble(vlm, ["{prompt}?"]), num_samples=2, generator=seeded()
    )
    other = copy.deepcopy(reward).to("cpu")
    x = noise(1, 3, 56, 56, dtype=torch.float32)
    with torch.no_grad():
        close(other(x, prompt="a cat"), reward(x, prompt="a cat"))
    inner = other.reward
    assert inner._asked["0"].backbone is inner.reward.backbone
    assert inner.reward.backbone is not vlm.backbone
