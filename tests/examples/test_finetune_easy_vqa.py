import json
from collections import Counter
from itertools import pairwise

import finetune_easy_vqa
import pytest
import torch
from finetune_easy_vqa import SHAPES, YES_NO, Picture, balanced, cross_entropy, draw, easy_vqa

from vlmreward import YesNoReward

# of the built-in model
pytestmark = pytest.mark.filterwarnings("ignore:the text has words that this small model")

SHORT = ["--limit", 12, "--batch", 3, "--questions", 2, "--save-every", 2]


def words(out, *more):
    return [str(word) for word in ["--out", out, *SHORT, *more]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("easy") / "run"
    assert finetune_easy_vqa.main(words(out, "--steps", 4)) == 0
    return out


def test_a_short_run(run):
    metrics = json.loads((run / "metrics.json").read_text())
    groups = metrics["after"]
    number = sum(group["questions"] for name, group in groups.items() if name != "all")
    assert groups["all"]["questions"] == number > 20
    assert 0 <= groups["all"]["interval"][0] <= groups["all"]["accuracy"] <= 1
    assert (run / "examples.png").stat().st_size > 10_000
    loaded, first = (YesNoReward(m, device="cpu") for m in (run / "model", "builtin/blocks"))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (loaded(image, prompt="a circle") - first(image, prompt="a circle")).abs() > 1e-3


def test_a_run_is_continued_and_not_overwritten(run, refused):
    assert "holds a run; add --resume" in refused(finetune_easy_vqa.main, *words(run, "--steps", 4))
    assert finetune_easy_vqa.main(words(run, "--steps", 6, "--resume")) == 0
    state = torch.load(run / "state.pt", weights_only=True)
    assert state["step"] == 6


def test_kinds_and_answers_are_drawn_equally_often():
    pictures = easy_vqa("train", (*YES_NO, *SHAPES))
    assert len(pictures) == 4000
    weights = balanced(pictures)
    drawn = Counter()
    for step in range(100):
        chosen, places = draw(weights, 16, 6, step, 0)
        for i, own in zip(chosen, places):
            picture = pictures[i]
            drawn.update(
                (finetune_easy_vqa.kind(picture.questions[j]), picture.answers[j]) for j in own
            )
    assert len(drawn) == 11
    expected = 9600 / 11
    # questions of a picture are drawn together, so that counts vary more than independent ones
    assert all(abs(count - expected) < 0.15 * expected for count in drawn.values())
    assert draw(weights, 16, 6, 3, 0) == draw(weights, 16, 6, 3, 0) != draw(weights, 16, 6, 4, 0)


def test_loss_of_yes_no_questions_is_that_of_the_reward():
    reward = YesNoReward("builtin/blocks", question=finetune_easy_vqa.QUESTION, device="cpu")
    pictures = easy_vqa("test", YES_NO)[:3]
    loss = cross_entropy(reward, pictures, [[0, 1]] * 3)
    values = torch.stack(
        [
            reward(p.image()[None], prompt=p.questions[i])[0] * (1 if p.answers[i] == "yes" else -1)
            for p in pictures
            for i in (0, 1)
        ]
    )
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(values).mean())


def test_loss_of_open_questions_is_among_the_shapes():
    reward = YesNoReward("builtin/blocks", question=finetune_easy_vqa.QUESTION, device="cpu")
    (path,) = {p.path for p in easy_vqa("test", YES_NO)[:1]}
    losses = [
        cross_entropy(reward, [Picture(path, ("what shape is present?",), (shape,))], [[0]])
        for shape in SHAPES
    ]
    assert sum((-loss).exp() for loss in losses) == pytest.approx(1, abs=1e-5)


def test_intervals():
    # Wilson (1927), with p = 1/2 in closed form: half the width is z / (2 sqrt(n + z^2))
    low, high = finetune_easy_vqa.wilson(50, 100)
    assert low + high == pytest.approx(1)
    assert (high - low) / 2 == pytest.approx(1.959964 / (2 * (100 + 1.959964**2) ** 0.5))
    widths = [b - a for a, b in (finetune_easy_vqa.wilson(n // 2, n) for n in (10, 100, 1000))]
    assert all(b < a for a, b in pairwise(widths))
    assert finetune_easy_vqa.wilson(10, 10)[1] == pytest.approx(1)


def test_bad_input(refused, tmp_path, capsys):
    main = finetune_easy_vqa.main
    assert "cannot load" in refused(main, *words(tmp_path, "--model", tmp_path / "nothing"))
    with pytest.raises(SystemExit):
        main(["--steps", "0"])
    assert "expected a whole number >= 1" in capsys.readouterr().err
