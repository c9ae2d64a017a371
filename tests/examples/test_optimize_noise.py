import json
import math

import optimize_noise
import pytest
import torch


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_norm_is_likeliest_at_the_mode_of_the_chi_distribution():
    noise = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    unit = noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
    mode = math.sqrt(99)
    at = optimize_noise.log_likelihood_of_norm(mode * unit)
    for other in (0.97, 1.03):
        assert (optimize_noise.log_likelihood_of_norm(other * mode * unit) < at).all()
    chi = torch.distributions.Chi2(torch.tensor(100.0))
    r = torch.tensor([8.0, 10.0, 12.0])
    density = chi.log_prob(r.square()) + torch.log(2 * r)  # of the norm itself
    ours = optimize_noise.log_likelihood_of_norm(r[:, None, None, None] * unit.float())
    torch.testing.assert_close(ours - ours[0], density - density[0], rtol=1e-4, atol=1e-3)


def test_the_regularizer_pulls_the_norm_back():
    """Without a reward, noise that is too long becomes shorter, and too short longer."""
    noise = torch.randn(2, 400) * torch.tensor([[1.3], [0.7]])
    found = optimize_noise.optimize(
        lambda x: x, lambda x: 0 * x.sum(1), noise, steps=60, regularization=1.0
    )
    first, last = found.history[0]["norm"], found.history[-1]["norm"]
    for a, b in zip(first, last):
        assert abs(b - math.sqrt(399)) < 0.7 * abs(a - math.sqrt(399))


def test_the_best_of_each_sample_is_kept():
    """A reward that only rises for one of two samples."""
    score = iter([[0.0, 0.0], [1.0, -1.0], [0.5, -2.0]])
    seen = []

    def sample(x):
        seen.append(x.detach().clone())
        return 1 * x

    def reward(x):
        return torch.tensor(next(score)) + 0 * x.sum(1)

    found = optimize_noise.optimize(sample, reward, torch.randn(2, 50), steps=2)
    assert torch.equal(found.best[0], seen[1][0])
    assert torch.equal(found.best[1], seen[0][1])
    assert torch.equal(found.first, seen[0])


def test_built_in_models(tmp_path, capsys):
    words = ["--count", "2", "--steps", "4", "--sampler-steps", "2", "--out", str(tmp_path)]
    assert optimize_noise.main(words) == 0
    files = capsys.readouterr().out.splitlines()[-3:]
    assert {p.name for p in tmp_path.iterdir()} == {"pictures.png", "curves.png", "metrics.jsonl"}
    assert all(str(tmp_path) in line for line in files)
    steps = lines(tmp_path / "metrics.jsonl")
    assert len(steps) == 5
    for first, *rest in zip(*[step["reward"] for step in steps]):
        assert max(rest) > first + 1


def test_a_pipeline_of_diffusers(tmp_path, pipeline_folder):
    words = ["a cube", "--diffusion", str(pipeline_folder), "--sampler-steps", "2", "--count", "1"]
    assert optimize_noise.main([*words, "--steps", "3", "--out", str(tmp_path)]) == 0
    rewards = [step["reward"][0] for step in lines(tmp_path / "metrics.jsonl")]
    assert max(rewards[1:]) > rewards[0]


def test_bad_input(refused, tmp_path, capsys):
    main = optimize_noise.main
    assert "cannot load 'no/such'" in refused(main, "--diffusion", "no/such", "--out", tmp_path)
    assert "cannot load 'no/vlm'" in refused(main, "--model", "no/vlm", "--out", tmp_path)
    (tmp_path / "file").touch()
    assert "cannot write to" in refused(main, "--out", tmp_path / "file" / "x")
    with pytest.raises(SystemExit):
        main(["--regularization", "-1"])
    assert "expected a number" in capsys.readouterr().err
