"""Answers that are looked at when a question is first asked: unlikely ones, and NaN."""

import copy
import shutil
import threading
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.utils import save_image

from vlmreward import CompositeReward, RatingReward, YesNoReward
from vlmreward.cli import main
from vlmreward.models import frozen_vlm
from vlmreward.models.loading import resolve
from vlmreward.rewards.base import NotFiniteError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
COLORS = {"question": "Is there {prompt}?", "answers": ("red", "blue")}


@pytest.fixture
def reward():
    return YesNoReward("builtin/blocks", device="cpu")


def heard(call, *arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments, **options)
    return [w for w in caught if "of the probability after" in str(w.message)]


def test_likely_answers_are_not_spoken_of(reward):
    assert heard(reward, IMAGES, "a red cube") == []
    assert reward.answer_mass(IMAGES, "a red cube").min() > 0.99


def test_unlikely_answers_are_named_once_for_a_prompt(reward):
    colors = reward.ask(**COLORS)
    (warning,) = heard(colors, IMAGES, "a red cube")
    said = str(warning.message)
    mass = colors.answer_mass(IMAGES, "a red cube").min()
    (top, *_), _ = colors.top_answers(IMAGES, "a red cube", k=1)
    assert f"the answers 'red', 'blue' hold {mass:.1g} of the probability" in said
    assert f"rather say {top.text!r} ({top.probability:.0%})" in said
    assert "; expected at least 0.01: " in said
    assert "\n" not in said
    assert warning.filename == __file__
    assert heard(colors, IMAGES, "a blue cone") == []
    assert len(heard(reward.ask(**COLORS), IMAGES, "a red cube")) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda r: r.ask("Is there {prompt}?", answers=("Yes red", "No blue")),
        lambda r: RatingReward(r, question="Is there {prompt}?", ratings={"red": 0, "blue": 1}),
        lambda r: CompositeReward({"a": r.ask(**COLORS), "b": r}),
        lambda r: YesNoReward(r, per_view="mean", **COLORS),
        lambda r: YesNoReward((r.backbone.vlm, r.backbone.processor), checkpoint=True, **COLORS),
    ],
    ids=["several tokens", "scale", "checklist", "per view", "checkpointing"],
)
def test_every_way_to_ask_is_looked_at(reward, make):
    made = make(reward)
    assert len(heard(made, IMAGES, "a red cube")) == 1
    assert heard(made, IMAGES, "a red cube") == []


def test_without_validation_nothing_is_looked_at(reward):
    silent = YesNoReward(reward, validate=False, **COLORS)
    assert heard(silent, IMAGES, "a red cube") == []
    assert silent.first_look(["?"]) is None


def test_the_look_happens_once_and_changes_nothing(reward, monkeypatch):
    sizes = []
    score = frozen_vlm.score_tokens

    def counted(vlm, hidden, tokens):
        sizes.append(None if tokens is None else len(tokens))
        return score(vlm, hidden, tokens)

    monkeypatch.setattr(frozen_vlm, "score_tokens", counted)
    x = IMAGES.clone().requires_grad_()
    first = torch.autograd.grad(reward(x, "a red cube").sum(), x)[0]
    again = torch.autograd.grad(reward(x, "a red cube").sum(), x)[0]
    assert sizes == [None, 2, 2]
    torch.testing.assert_close(first, again, atol=0, rtol=0)


def test_threads_warn_once(reward):
    colors = reward.ask(**COLORS)

    def several():
        threads = [
            threading.Thread(target=colors, args=(IMAGES, f"a {word} cube"))
            for word in ("red", "blue", "green", "pink")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(heard(several)) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(reward, value):
    vlm = copy.deepcopy(reward.backbone.vlm)
    with torch.no_grad():
        vlm.model.language_model.norm.weight[3] = value
    broken = YesNoReward((vlm, reward.backbone.processor))
    several = broken.ask("Is {prompt} there?", answers=("Yes red", "No red"))
    for made in (broken, CompositeReward([broken]), several):
        for _ in range(2):  # an error is not forgotten
            with pytest.raises(ValueError, match=r"not finite for .*norm\.weight holds NaN or inf"):
                made(IMAGES, "a cube")


def test_overflow_is_told_from_broken_weights(reward):
    vlm = copy.deepcopy(reward.backbone.vlm)
    with torch.no_grad():
        vlm.model.language_model.norm.weight.fill_(1e38)
    broken = YesNoReward((vlm, reward.backbone.processor))
    with pytest.raises(NotFiniteError, match=r"they overflow in torch.float32: pass dtype"):
        broken(IMAGES, "a cube")


def test_score_names_the_image_and_ends_with_an_error(tmp_path, capsys):
    folder, picture = tmp_path / "model", tmp_path / "red.png"
    shutil.copytree(resolve("builtin/blocks"), folder)
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if key.endswith("norm.weight"))
    state[name] = torch.full_like(state[name], torch.nan)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    save_image(IMAGES[0], picture)
    words = ["--model", str(folder), "--prompt", "a cube", "--device", "cpu"]
    assert main(["score", str(picture), *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"error: {picture}: the model's logits are not finite for 'Does this image" in said.err
    assert f"{name} holds NaN" in said.err


def test_score_looks_at_every_value(tmp_path, capsys, monkeypatch):
    picture = tmp_path / "red.png"
    save_image(IMAGES[0], picture)
    values = iter([torch.tensor([1.5]), torch.tensor([torch.nan])])
    monkeypatch.setattr(YesNoReward, "forward", lambda *_, **__: next(values))
    words = ["--prompt", "a cube", "--prompt", "a cone", "--batch", "1", "--device", "cpu"]
    assert main(["score", str(picture), *words, "--format", "json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "the log-odds for 'a cone' are nan; expected a finite number" in said.err
