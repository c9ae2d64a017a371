"""One reward, and several on one model, called from many threads: as from a single one."""

import copy
import random
import sys
import threading
import time

import pytest
import tiny_models
import torch
from reference_rewards import Linear, Square, noise, pattern

from vlmreward import CompositeReward, YesNoReward
from vlmreward.models._lru_cache import _LRUCache
from vlmreward.processors._banded_operator import full_precision
from vlmreward.wrappers import Ensemble, ExpectationOverTransformations, HeldOutMonitor

QUESTION = "Does this image show {prompt}? Answer Yes or No."
PROMPTS = [
    "a cat",
    "no dog",
    "a red cube on top of a blue sphere",
    "a red cube on top of a blue sphere beside a house, and two green cones in front of it",
]
SIZES = [(40, 50), (64, 33), (30, 30)]
THREADS = 8


@pytest.fixture(autouse=True)
def often():
    """Threads take turns every few instructions, and each computes by itself."""
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


def at_once(work, threads=THREADS):
    """``work(k)`` in every thread k, begun together; what was raised is raised here."""
    start, raised = threading.Barrier(threads), []

    def run(k):
        start.wait()
        try:
            work(k)
        except Exception as error:
            raised.append(error)

    running = [threading.Thread(target=run, args=(k,)) for k in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if raised:
        raise raised[0]


def forgotten(reward):
    """The reward without what it has asked its processor."""
    for kept in (reward.backbone._rows, reward.backbone._layouts):
        kept.kept.clear()
    return reward


def asked(reward):
    """Calls of different lengths and kinds: functions that return a value and its images."""
    g = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=g) for size in SIZES]
    other = reward.ask("Is there {prompt}?")
    rewards = [
        reward,
        other,
        CompositeReward([reward, other]),
        reward.ask(QUESTION, answers=("a cat", "Nothing")),
    ]

    def call(ask, prompt, views):
        leaves = [view.clone().requires_grad_(torch.is_grad_enabled()) for view in views]
        return ask([leaves], prompt=prompt), leaves

    jobs = [(reward, prompt, [images[i % len(images)]]) for i, prompt in enumerate(PROMPTS)]
    jobs += [(ask, prompt, images[:2]) for prompt in PROMPTS[::3] for ask in rewards]
    return [lambda job=job: call(*job) for job in jobs]


def value(job):
    with torch.no_grad():
        return job()[0]


def value_and_gradients(job):
    total, leaves = job()
    return total.detach(), torch.autograd.grad(total.sum(), leaves)


def count(reward, calls):
    """Numbers of the threads' calls with a wrong value and with an exception."""
    jobs = asked(reward)
    right = [(value(job), value_and_gradients(job)) for job in jobs]
    forgotten(reward)
    outcomes = []

    def work(k):
        draw = random.Random(k)
        for n in range(calls):
            i = draw.randrange(len(jobs))
            alone, (with_graph, expected) = right[i]
            try:
                if n % 4:
                    wrong = not (value(jobs[i]) - alone).abs().max() <= 1e-5
                else:
                    got, gradients = value_and_gradients(jobs[i])
                    wrong = not (got - with_graph).abs().max() <= 1e-5
                    for gradient, wanted in zip(gradients, expected):
                        wrong |= not (gradient - wanted).norm() <= 1e-4 * wanted.norm()
                outcomes.append("wrong" if wrong else "right")
            except Exception as error:
                outcomes.append(f"{type(error).__name__}: {error}")

    at_once(work)
    assert len(outcomes) == THREADS * calls
    wrong, right = outcomes.count("wrong"), outcomes.count("right")
    return wrong, len(outcomes) - wrong - right


def made(family, **options):
    return YesNoReward(tiny_models.build(family), question=QUESTION, **options)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("calls", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_values_and_gradients_are_those_of_one_thread(family, calls):
    assert count(made(family), calls) == (0, 0)


@pytest.mark.parametrize("calls", [5, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:LlavaNextImageProcessor has no counterpart")
def test_with_an_image_processor_of_transformers(calls):
    assert count(made("llava_next"), calls) == (0, 0)


def test_with_checkpointing():
    assert count(made("qwen2_5_vl", checkpoint=True), 5) == (0, 0)


def test_with_a_compiled_layer():
    """The last one, which is the one that is told which tokens to compute; in one graph."""
    reward = made("llava")
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    reward.backbone.vlm.get_decoder().layers[-1].compile(backend=backend, fullgraph=True)
    x = noise(1, 3, 30, 30, dtype=torch.float32)
    with torch.no_grad():
        right = [reward(x, prompt=prompt) for prompt in PROMPTS]
    compiled = len(graphs)

    @torch.no_grad()
    def work(k):
        for n in range(10):
            i = (k + n) % len(PROMPTS)
            torch.testing.assert_close(reward(x, prompt=PROMPTS[i]), right[i], atol=1e-5, rtol=0)

    at_once(work)
    assert compiled
    assert len(graphs) == compiled


def test_new_texts_in_every_call():
    """All threads ask the tokenizer, and rewards that are made meanwhile do too."""
    reward = made(tiny_models.having("accepts_image_features")[-1])
    x = noise(1, 3, 30, 30, dtype=torch.float32)
    prompts = [[f"{k} cats and {n} dogs" * (1 + n) for n in range(4)] for k in range(THREADS)]
    found = {}

    @torch.no_grad()
    def work(k):
        for prompt in prompts[k]:
            found[prompt] = reward.ask("Is there {prompt}?", answers=("Yes", "No way"))(
                x, prompt=prompt
            )

    at_once(work)
    again = forgotten(reward).ask("Is there {prompt}?", answers=("Yes", "No way"))
    with torch.no_grad():
        for prompt, got in found.items():
            torch.testing.assert_close(got, again(x, prompt=prompt), atol=1e-5, rtol=0)


def test_a_call_within_a_call():
    """The second one, of another length, begins before the first one's end and ends after it."""
    reward = made("llava")
    x = noise(1, 3, 30, 30, dtype=torch.float32)
    short, long = (reward(x, prompt=prompt) for prompt in (PROMPTS[0], PROMPTS[-1]))
    within, after, found = threading.Event(), threading.Event(), []

    def ask_the_other():
        found.append(reward(x, prompt=PROMPTS[-1]))

    other = threading.Thread(target=ask_the_other)

    def wait(module, args):
        if threading.current_thread() is other:
            within.set()
            after.wait(60)
        else:
            other.start()
            within.wait(60)

    layer = reward.backbone.vlm.get_decoder().layers[-1].self_attn
    handle = layer.register_forward_pre_hook(wait)
    try:
        torch.testing.assert_close(reward(x, prompt=PROMPTS[0]), short)
    finally:
        after.set()
        other.join()
        handle.remove()
    torch.testing.assert_close(found[0], long)


def test_what_is_kept_is_bounded_and_a_copy_begins_empty():
    recent = _LRUCache(3)

    def work(k):
        draw = random.Random(k)
        for _ in range(2000):
            key = draw.randrange(8)
            assert recent.get_or_create(key, lambda key=key: key + 100) == key + 100

    at_once(work)
    assert len(recent.kept) <= 3
    other = copy.deepcopy(recent)
    assert (other.size, len(other.kept)) == (3, 0)


def test_full_precision_until_the_last_thread_is_done():
    """The setting is one of the process, and as before when nobody needs it off any more."""
    settings, device = torch.backends.mkldnn.matmul, torch.device("cpu")
    before, seen = settings.fp32_precision, []
    first, second, done = (threading.Event() for _ in range(3))

    def work(k):
        if k:
            first.wait(60)
        with full_precision(device):
            (second if k else first).set()
            (done if k else second).wait(60)
            seen.append(settings.fp32_precision)
        done.set()

    try:
        settings.fp32_precision = "bf16"
        at_once(work, threads=2)
        assert seen == ["ieee", "ieee"]
        assert settings.fp32_precision == "bf16"
    finally:
        settings.fp32_precision = before


def test_views_of_a_query_stay_under_one_transformation():
    class Remembering(torch.nn.Module):
        """Keeps its last draw, as kornia's augmentations do."""

        def forward(self, images):
            self.drawn = torch.rand(1)
            torch.randn(1000).sort()
            return images * self.drawn

    reward = ExpectationOverTransformations(Linear(pattern(3, 4, 4)), Remembering(), num_samples=2)
    x = noise(1, 1, 3, 4, 4).expand(1, 3, 3, 4, 4)

    def work(k):
        for _ in range(50):
            views = reward.augment(x)[0]
            assert torch.equal(views[0], views[1])
            assert torch.equal(views[0], views[2])

    at_once(work)


def test_every_call_is_a_step_of_watched():
    def held_out(images):
        time.sleep(1e-3)
        return images.flatten(1).sum(1)

    watched = HeldOutMonitor(Square(), held_out, every=2, window=10)
    x = noise(1, 3, 4, 4)

    def work(k):
        for _ in range(20):
            watched(x.clone().requires_grad_())

    at_once(work)
    assert watched.step == THREADS * 20
    assert sorted(seen.step for seen in watched.history) == list(range(0, THREADS * 20, 2))


def test_every_call_goes_into_the_running_mean_of_an_ensemble(monkeypatch):
    lerp = torch.Tensor.lerp

    def slow(*args):
        out = lerp(*args)
        time.sleep(2e-3)
        return out

    monkeypatch.setattr(torch.Tensor, "lerp", slow)
    ensemble = Ensemble([Square(), Square(3.0)], balance="gradient-norm", momentum=0.9)
    ensemble.shares.fill_(1.0)
    x = noise(1, 3, 4, 4)

    def work(k):
        for _ in range(5):
            ensemble(x.clone().requires_grad_()).sum().backward()

    at_once(work)
    shares = torch.tensor([0.5, 1.5])  # of gradients of 1 and 3, by their mean
    torch.testing.assert_close(ensemble.shares, shares + (1 - shares) * 0.9 ** (5 * THREADS))
