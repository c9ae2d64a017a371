"""Muon in float32."""

import pytest
import torch

from vlmreward_3d.blocks.training.muon import Float32Muon, orthogonalize

JORDAN = (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonalize(matrix, JORDAN, 5, 1e-7)
    values = u.T @ made @ v.T
    expected = s / s.norm()
    for _ in range(5):  # the iteration acts on each singular value by itself
        a, b, c = JORDAN
        expected = a * expected + b * expected**3 + c * expected**5
    torch.testing.assert_close(values, expected.diag(), atol=1e-10, rtol=0)
    assert expected.min() > 0.3
    assert expected.max() < 1.3


def test_steps_are_those_of_torch_to_bfloat16() -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(12, 30, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.03}
    optimizers = (
        Float32Muon([ours], **settings),
        torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        grad = torch.randn(12, 30, generator=generator)
        for p, optimizer in zip((ours, theirs), optimizers):
            p.grad = grad.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved
    assert moved > 1.0


def test_its_state_is_that_of_torch() -> None:
    p = torch.nn.Parameter(torch.ones(3, 4))
    p.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    mine = Float32Muon([p], lr=0.1, weight_decay=0.0)
    mine.step()
    other = torch.optim.Muon([p], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    other.load_state_dict(mine.state_dict())
    torch.testing.assert_close(other.state[p]["momentum_buffer"], 0.05 * p.grad)
