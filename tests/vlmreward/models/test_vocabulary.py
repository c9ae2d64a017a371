"""Words that the built-in model has never seen."""

import json
import warnings

import pytest
import torch

from vlmreward import CompositeReward, YesNoReward, doctor
from vlmreward.models.loading import resolve
from vlmreward.models.vocabulary import KNOWN_WORDS

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reward():
    return YesNoReward("builtin/blocks", device="cpu")


def heard(call, *arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments, **options)
    return [str(w.message) for w in caught if "not trained on" in str(w.message)]


def test_unknown_words_are_named_once(reward):
    (said,) = heard(reward, IMAGES, "a purple elephant playing chess")
    assert "not trained on: chess, elephant, playing; expected some of its 13" in said
    assert "\n" not in said
    assert heard(reward, IMAGES, "a purple elephant playing chess") == []
    (said,) = heard(reward, IMAGES, "two elephants")
    assert "not trained on: elephants, two; expected" in said
    assert heard(YesNoReward(reward.backbone), IMAGES, "two elephants") == []


def test_many_unknown_words_are_counted(reward):
    (said,) = heard(reward, IMAGES, " ".join(f"word{i}" for i in range(12)))
    assert "word5 and 4 more; expected" in said


@pytest.mark.parametrize("question", ["yes-no", "paper/selected", "paper/A", "paper/B"])
def test_words_of_its_world_are_known(reward, question):
    assert heard(reward.ask(question), IMAGES, "a Red cube on top of the cyan snowman") == []


def test_every_way_to_ask_is_looked_at(reward):
    several = reward.ask("Is there {prompt}?", answers=("Yes No", "No Yes"))
    assert several.tokens is None
    (said,) = heard(several, IMAGES, "a zebra")
    assert "zebra" in said
    both = CompositeReward(reward, ["paper/content", "paper/geometry"])
    (said,) = heard(both, IMAGES, "a giraffe")
    assert "on: giraffe; expected" in said


def test_other_models_are_not_asked(family_pair):
    assert heard(YesNoReward(family_pair("llava")), IMAGES, "a purple elephant") == []


def test_the_doctor_keeps_its_samples_to_itself(reward):
    assert heard(doctor.run_checks, reward, quick=True) == []


def test_the_words_are_kept_when_the_model_is_saved(reward, tmp_path):
    reward.backbone.processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    with open(f"{resolve('builtin/blocks')}/tokenizer_config.json") as file:
        assert saved[KNOWN_WORDS] == json.load(file)[KNOWN_WORDS]
