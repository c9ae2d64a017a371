import torch
from torch import nn

from vlmreward_3d.blocks.training.trainer import Trainer


def run(out, stops):
    """Train a line to a parabola in several sittings; the averaged weights at the end."""
    for stop in stops:
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        trainer = Trainer(
            model,
            [model.weight],
            out=out,
            steps=40,
            lr=0.05,
            matrix_lr=0.2,
            warmup=5,
        )
        for step in range(trainer.start, stop):
            x = torch.rand(16, 1, generator=torch.Generator().manual_seed(step))
            loss = (model(x) - x**2).square().mean()
            trainer.update(loss, step)
        trainer.save(stop)
        trainer.log(step=stop)
    return trainer


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    whole, parts = run(tmp_path / "a", [40]), run(tmp_path / "b", [13, 40])
    assert torch.equal(whole.average.weight, parts.average.weight)
    assert torch.equal(whole.model.weight, parts.model.weight)
    assert (tmp_path / "b" / "log.jsonl").read_text().count("\n") == 2


def test_the_average_lags_behind_the_model(tmp_path):
    trainer = run(tmp_path, [40])
    assert not torch.equal(trainer.average.weight, trainer.model.weight)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 0.05 * 0.05
