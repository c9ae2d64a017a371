import pytest
import torch
from torch import nn

from vlmreward_3d.blocks.training.trainer import Trainer, command_line


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


@pytest.mark.parametrize(("has", "used"), [({"amx_bf16": True}, True), ({"avx2": True}, False)])
def test_bfloat16_is_used_where_the_cpu_multiplies_in_it(has, used, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    parser = command_line("", steps=1, batch="", batch_size=1, lr=1.0, matrix_lr=1.0)
    paths = ["--data", "data", "--out", "out"]
    assert parser.parse_args(paths).bf16 == used
    assert parser.parse_args([*paths, "--bf16"]).bf16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    command = command_line("", steps=1, batch="", batch_size=1, lr=1.0, matrix_lr=1.0)
    assert command.parse_args(paths).bf16
