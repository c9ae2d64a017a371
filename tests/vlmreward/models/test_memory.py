"""Less memory for the same numbers: checkpointing, compiled layers, micro-batches."""

import copy
import weakref

import pytest
import tiny_models
import torch
from reference_rewards import Linear, Square, noise, pattern

from vlmreward import CompositeReward, MicroBatched, YesNoReward
from vlmreward.models._acceleration.gradient_checkpointing import checkpoint_layers, layers_of
from vlmreward.wrappers.microbatching import parse_bytes

QUESTION = "Does this image show {prompt}?"


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def pair(request):
    return tiny_models.build(request.param)


@pytest.fixture(scope="module")
def reward():
    return YesNoReward(tiny_models.build("qwen2_5_vl"), question=QUESTION)


def step(reward, images, **placeholders):
    x = images.clone().requires_grad_()
    values = reward(x, **placeholders)
    (grad,) = torch.autograd.grad((values * torch.arange(1.0, len(values) + 1)).sum(), x)
    return values.detach(), grad


def kept_bytes(reward, images, **placeholders):
    """Bytes that the graph of the result keeps besides the parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in reward.parameters()}
    saved = []

    def note(tensor):
        out = tensor.detach()  # an object of the graph's own, that goes when the graph goes
        saved.append(weakref.ref(out))
        return out

    x = images.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        values = reward(x, **placeholders)
    assert values.requires_grad
    alive = [t.untyped_storage() for t in (ref() for ref in saved) if t is not None]
    kept = {s.data_ptr(): s.nbytes() for s in alive if s.data_ptr() not in parameters}
    return sum(kept.values())


def test_checkpointing_changes_memory_alone(pair):
    images = noise(2, 2, 3, 40, 50, dtype=torch.float32)
    plain = YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION)
    frugal = YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION, checkpoint=True)
    for reward in (plain, frugal):
        assert not reward.backbone.vlm.training
        assert not any(type(m) is torch.nn.Dropout and m.training for m in reward.modules())
    (value, grad), (expected, expected_grad) = (
        step(r, images, prompt="a cat") for r in (frugal, plain)
    )
    torch.testing.assert_close(value, expected)
    assert (grad - expected_grad).norm() < 1e-5 * expected_grad.norm()
    assert kept_bytes(frugal, images, prompt="a cat") < 0.6 * kept_bytes(
        plain, images, prompt="a cat"
    )


def test_checkpointing_outlives_train_and_eval():
    reward = YesNoReward(tiny_models.build("qwen2_5_vl"), question=QUESTION, checkpoint=True)
    holder = torch.nn.Sequential(torch.nn.Linear(1, 1), reward)
    images = noise(1, 3, 40, 50, dtype=torch.float32)
    before = kept_bytes(reward, images, prompt="a cat")
    holder.train()
    holder.eval()
    assert kept_bytes(reward, images, prompt="a cat") == before
    assert all(layer.training for layer in layers_of(reward.backbone.vlm))
    checkpoint_layers(reward.backbone.vlm, on=False)
    assert kept_bytes(reward, images, prompt="a cat") > 1.5 * before


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="no layers that can be checkpointed"):
        checkpoint_layers(torch.nn.Linear(1, 1))


def test_the_last_feed_forward_network_sees_the_last_tokens_alone(pair):
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION)
    mlp = reward.backbone.vlm.get_decoder().layers[-1].mlp
    seen = []
    mlp.down_proj.register_forward_hook(lambda module, args, out: seen.append(out.shape[:-1]))
    images = noise(2, 2, 3, 40, 50, dtype=torch.float32)
    reward(images, prompt=["a cat", "a red cube on a sphere"])
    CompositeReward(reward, [QUESTION, "Is it red?", "Is it blue?"])(images, prompt="a cat")
    shared = reward.backbone.family.is_causal
    assert [shape.numel() for shape in seen] == [2, 6]
    assert len(seen[1]) == (2 if shared else 1)
    mlp(torch.zeros(1, 3, mlp.down_proj.out_features))
    assert seen[2].numel() == 3  # others use it as it was


def test_compiled_layers_compute_the_same():
    pair = tiny_models.build("qwen2_5_vl")
    images = noise(1, 2, 3, 40, 50, dtype=torch.float32)
    reward = YesNoReward(pair, question=QUESTION)
    value, grad = step(reward, images, prompt="a cat")
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    reward.backbone.compile_layers(backend=backend)
    compiled, compiled_grad = step(reward, images, prompt="a cat")
    assert seen
    torch.testing.assert_close(compiled, value)
    torch.testing.assert_close(compiled_grad, grad)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_add_up(reward, size):
    images = noise(3, 2, 3, 40, 50, dtype=torch.float32)
    prompts = ["a cat", "a red cube on a sphere", "dogs"]
    expected, expected_grad = step(reward, images, prompt=prompts)
    value, grad = step(MicroBatched(reward, micro_batch_size=size), images, prompt=prompts)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)
    assert (grad - expected_grad).norm() < 1e-4 * expected_grad.norm()


def test_lists_of_different_sizes(reward):
    queries = [[noise(3, 30, 40)], [noise(3, 50, 40), noise(3, 30, 30)], [noise(3, 40, 40)]]
    out = []
    for r in (reward, MicroBatched(reward, micro_batch_size=2)):
        leaves = [[v.float().requires_grad_() for v in q] for q in queries]
        values = r(leaves, prompt="a cat")
        out.append((values, torch.autograd.grad(values.sum(), [v for q in leaves for v in q])))
    torch.testing.assert_close(out[0][0], out[1][0], atol=1e-5, rtol=0)
    for grad, expected in zip(out[1][1], out[0][1]):
        assert (grad - expected).norm() < 1e-4 * expected.norm()


def test_one_part_at_a_time():
    linear = Linear(pattern(3, 4, 4))
    micro = MicroBatched(linear, micro_batch_size=2)
    _, grad = step(micro, noise(5, 3, 4, 4), prompt=list("abcde"), size="x")
    assert [(len(i), t, f) for i, t, f in linear.calls] == [
        (2, ["a", "b"], {"size": "x"}),
        (2, ["c", "d"], {"size": "x"}),
        (1, ["e"], {"size": "x"}),
    ]
    torch.testing.assert_close(grad, torch.arange(1.0, 6)[:, None, None, None] * linear.weight)


def test_budget_decides_the_size(reward):
    images = noise(4, 3, 40, 50, dtype=torch.float32)
    one = kept_bytes(reward, images[:1], prompt="a cat")
    micro = MicroBatched(reward, max_memory=2.5 * one)
    value, grad = step(micro, images, prompt="a cat")
    assert list(micro.measured_sizes.values()) == [2]
    expected, expected_grad = step(reward, images, prompt="a cat")
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)
    assert (grad - expected_grad).norm() < 1e-4 * expected_grad.norm()
    assert kept_bytes(micro, images, prompt="a cat") == images.nbytes  # the gradient
    tight = MicroBatched(CompositeReward(reward, [QUESTION, "Is it red?"]), max_memory="1 kB")
    step(tight, images, prompt="a cat")
    assert list(tight.measured_sizes.values()) == [1]


def test_without_gradients_nothing_is_measured(reward):
    micro = MicroBatched(reward, max_memory="1MiB")
    with torch.no_grad():
        micro(noise(2, 3, 40, 50, dtype=torch.float32), prompt="a cat")
    assert not micro.measured_sizes


def test_second_derivatives_say_what_to_do():
    micro = MicroBatched(Square(), micro_batch_size=1)
    x = noise(2, 3, 4, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="call the reward itself"):
        torch.autograd.grad(micro(x).sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GiB", 6 * 2**30),
        ("500 MB", 500 * 10**6),
        ("1.5k", None),
        ("2kb", 2000),
        (12.9, 12),
        ("7 b", 7),
    ],
)
def test_sizes_in_bytes(text, size):
    if size is None:
        with pytest.raises(ValueError, match="expected bytes, or a text such as '6GiB'"):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected one of micro_batch_size and max_memory"),
        (
            {"micro_batch_size": 1, "max_memory": 5},
            "expected one of micro_batch_size and max_memory",
        ),
        ({"micro_batch_size": 0}, "a whole number >= 1"),
        ({"max_memory": 0}, "above 0"),
        ({"max_memory": "6 iB"}, "such as '6GiB'"),
    ],
)
def test_bad_budgets(arguments, message):
    with pytest.raises(ValueError, match=message):
        MicroBatched(Square(), **arguments)


def test_measuring_leaves_no_graph_behind():
    class Token:
        pass

    alive = weakref.WeakSet()

    class HeldOutMonitor(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.token = Token()
            alive.add(ctx.token)
            return x.flatten(1).mean(1)

        @staticmethod
        def backward(ctx, grad):
            return grad.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)

    def reward(images, prompt=None):
        return HeldOutMonitor.apply(images).exp()  # which keeps its output

    x = noise(4, 3, 8, 8).requires_grad_()
    MicroBatched(reward, max_memory="1kB")(x).sum().backward()
    assert not alive
