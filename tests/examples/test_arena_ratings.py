"""Ratings: a closed form, GPTEval3D's objective by another route, and how often intervals hold."""

import json

import numpy as np
import pytest
import torch
from tournament import ratings


def played(truth, prompts, rng, *, kept=1.0):
    """Wins (prompts, n, n) of methods of known ratings that meet on every prompt."""
    i, j = np.triu_indices(len(truth), 1)
    p = 1 / (1 + 10 ** ((truth[j] - truth[i]) / 400))
    met = rng.random((prompts, len(i))) < kept
    first = rng.random((prompts, len(i))) < p
    wins = np.zeros((prompts, len(truth), len(truth)))
    wins[:, i, j], wins[:, j, i] = first & met, ~first & met
    return wins


def test_two_methods_have_the_log_odds_of_their_wins():
    elo = ratings.fit(np.array([[0.0, 9.0], [3.0, 0.0]]))
    assert elo[0] - elo[1] == pytest.approx(400 * np.log10(3), abs=1e-9)
    assert elo.mean() == pytest.approx(0, abs=1e-9)


def test_gradient_is_zero_and_many_tournaments_are_as_one_by_one():
    rng = np.random.default_rng(0)
    wins = np.stack([played(np.array([0.0, 80, 300, 500]), 30, rng).sum(0) for _ in range(5)])
    elo = ratings.fit(wins)
    for one, each in zip(wins, elo):
        np.testing.assert_allclose(ratings.fit(one), each, atol=1e-7)
        best = ratings.objective(each, one)
        for k in range(4):
            for by in (-3.0, 3.0):
                assert ratings.objective(each + by * np.eye(4)[k], one) > best


@pytest.mark.parametrize("draw", [0.5, 1.0])
def test_ratings_minimize_gpteval3ds_objective(tmp_path, draw):
    """The objective as GPTEval3D has it, written down again and minimized by L-BFGS."""
    rng = np.random.default_rng(1)
    names = ["dreamfusion", "magic3d", "mvdream", "ours", "sjc"]
    truth = np.array([1000.0, 1100, 1250, 1300, 850])
    lines = []
    for _ in range(600):
        i, j = rng.choice(5, 2, replace=False)
        p = 1 / (1 + 10 ** ((truth[j] - truth[i]) / 400))
        result = 0 if rng.random() < 0.15 else -1 if rng.random() < p else 1
        lines.append({"m1": names[i], "m2": names[j], "result": result})
    file = tmp_path / "comparisons.json"
    file.write_text(json.dumps({"0": lines}))

    read = json.loads(file.read_text())["0"]
    weights = np.zeros((5, 5))
    for line in read:
        i, j = names.index(line["m1"]), names.index(line["m2"])
        weights[i, j] += {-1: 1, 0: draw, 1: 0}[line["result"]]
        weights[j, i] += {-1: 0, 0: draw, 1: 1}[line["result"]]

    free = torch.full((4,), 1000.0, dtype=torch.float64, requires_grad=True)
    other = torch.optim.LBFGS(
        [free],
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        other.zero_grad()
        r = torch.cat([torch.full((1,), 1000.0, dtype=torch.float64), free])  # dreamfusion stays
        ahead = (1 + 10 ** ((r[None] - r[:, None]) / 400)).log()
        value = (torch.tensor(weights) * ahead).sum()
        value.backward()
        return value

    for _ in range(5):
        other.step(loss)
    columns = [np.array([names.index(x[m]) for x in read]) for m in ("m1", "m2")]
    results = np.array([x["result"] for x in read])
    prompts = np.arange(600) % 20
    wins = ratings.win_matrices(*columns, results, prompts, methods=5, prompts=20, draw=draw)
    np.testing.assert_array_equal(wins.sum(0), weights)
    rated = ratings.rate(wins, anchor=0, draws=50)
    assert not rated.regularized
    np.testing.assert_allclose(rated.elo, [1000, *free.tolist()], atol=0.1)
    assert ratings.objective(rated.elo, weights) <= loss().item() + 1e-9
    assert rated.low[0] == pytest.approx(1000)
    assert rated.high[0] == pytest.approx(1000)


def test_intervals_hold_the_truth_as_often_as_they_say(record_property):
    """1,000 tournaments of five methods, each pair compared on each of 40 prompts."""
    truth = np.linspace(-150, 150, 5)
    rng = np.random.default_rng(2)
    held = []
    for trial in range(1000):
        found = ratings.rate(played(truth, 40, rng), draws=200, seed=trial)
        held.append((found.low <= 1000 + truth) & (1000 + truth <= found.high))
    coverage = float(np.mean(held))
    record_property("coverage", coverage)
    assert 0.93 <= coverage <= 0.97, coverage


def test_intervals_shrink_with_the_root_of_the_prompts():
    rng = np.random.default_rng(3)
    truth = np.array([0.0, 100, 200])
    widths = []
    for prompts in (50, 800):
        found = ratings.rate(played(truth, prompts, rng), draws=400)
        widths.append((found.high - found.low).mean())
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_prompts_that_repeat_each_other_are_not_independent():
    """Four copies of a prompt's comparisons tell as much about other prompts as one does.

    The Fisher information alone would halve the intervals.
    """
    wins = played(np.array([0.0, 100, 200]), 40, np.random.default_rng(4))
    once, copied = ratings.rate(wins, draws=400), ratings.rate(4 * wins, draws=400)
    np.testing.assert_allclose(copied.elo, once.elo, atol=1e-6)
    width = copied.high - copied.low
    assert (width > 0.8 * (once.high - once.low)).all()


def test_a_tournament_without_upsets_is_regularized_and_has_wide_intervals():
    wins = np.zeros((6, 3, 3))
    wins[:, 0, 1] = wins[:, 0, 2] = wins[:, 1, 2] = 1
    assert not ratings.strongly_connected(wins.sum(0))
    found = ratings.rate(wins)
    assert found.regularized
    assert found.elo[0] > found.elo[1] > found.elo[2]
    assert np.isfinite([found.low, found.high]).all()
    assert (found.high - found.low > 200).all()
    wins[0, 2, 0] = 1  # a circle: everybody has beaten everybody over somebody
    assert ratings.strongly_connected(wins.sum(0))
    assert not ratings.rate(wins).regularized
    with pytest.raises(ValueError, match="do not converge"):
        ratings.fit(np.array([[0.0, 5.0], [0.0, 0.0]]))


def test_a_method_without_a_comparison_is_refused():
    wins = np.zeros((2, 3, 3))
    wins[:, 0, 1] = wins[:, 1, 0] = 1
    with pytest.raises(ValueError, match="no comparison"):
        ratings.rate(wins)


@pytest.mark.parametrize(("prompts", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (40, 2.0227)])
def test_the_factor_for_few_prompts_is_students(prompts, t):
    expected = t / 1.959964 * (prompts / (prompts - 1)) ** 0.5
    assert ratings.student_factor(prompts) == pytest.approx(expected, rel=0.01)
