import json
from contextlib import nullcontext

import benchmark_paper_scale as benchmark
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

pytestmark = pytest.mark.filterwarnings("ignore:the text has words that this small model")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("scale")
    benchmark.main(["--size", "small", "--rounds", "2", "--out", str(out)])
    return out


def test_every_part_of_every_phase_is_measured(measured):
    found = json.loads((measured / "paper-scale.json").read_text())
    assert [(row["first"], row["steps"], row["views"]) for row in found["phases"]] == [
        (0, 5000, 8),
        (5000, 10000, 8),
    ]
    for row in found["phases"]:
        assert set(row["seconds"]) == set(benchmark.PARTS)
        assert all(len(times) == 2 and min(times) > 0 for times in row["seconds"].values())
        assert row["flops"]["UNet"] > row["flops"]["autoencoder"] > 0
        # value and gradient of a frozen model: twice the products of the forward pass
        assert row["flops"]["VLM"] > 1e9
    assert found["matrix_rate"] > 1e9
    # the VLM sees views of one size, whatever is rendered; what resizes them is next to nothing
    first, last = (row["flops"]["VLM"] for row in found["phases"])
    assert first == pytest.approx(last, rel=1e-3)


def test_a_count_from_shallow_models_is_that_of_the_whole(measured, tmp_path, monkeypatch):
    rows = json.loads((measured / "paper-scale.json").read_text())["phases"]
    counted, vlm_operations = [], benchmark.vlm_operations

    def recorded(*arguments):
        counted.append(vlm_operations(*arguments))
        return counted[-1]

    monkeypatch.setattr(benchmark, "vlm_operations", recorded)
    benchmark.main(["--count", "--size", "small", "--out", str(tmp_path)])
    text = (tmp_path / "paper-scale-operations.md").read_text()
    assert counted == [row["flops"]["VLM"] for row in rows]
    for row in rows:
        label = f"{row['views']} views of {row['side']} px, {row['steps']} steps"
        assert f"| {label} | VLM | {row['flops']['VLM'] / 1e12:.3f} |" in text
    # without its values a network is counted as with them
    counted = benchmark.teacher_operations("small", 8)
    assert counted == {part: row["flops"][part] for part in ("autoencoder", "UNet")}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kernel", [None, SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_attention_is_counted_whatever_its_kernel(device, kernel, causal, gradient):
    batch, heads, tokens, width = 2, 3, 32, 16
    shape = (batch, heads, tokens, width)
    qkv = [torch.rand(shape, device=device, requires_grad=gradient) for _ in range(3)]

    def run():
        out = torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=causal)
        if gradient:
            torch.autograd.grad(out, qkv, torch.ones_like(out))

    # two products of 2 * tokens * width operations for each of the scores' elements, and on the way
    # back two for each of these: one for each factor
    products = 2 * batch * heads * tokens**2 * (2 * width)
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        assert benchmark.operations(run) == (3 if gradient else 1) * products


def test_table_adds_up():
    row = {
        "first": 0,
        "steps": 3600,
        "views": 8,
        "side": 64,
        "seconds": {"render": [0.5] * 3, "UNet": [0.25] * 3},
        "flops": {"render": 0, "UNet": 10**12},
    }
    text = benchmark.table(
        {"run": "a day", "matrix_rate": 8e12, "peak": 3 * 2**30, "phases": [row, row]}
    )
    assert "| 8 views of 64 px, 3600 steps | UNet | 250.0 [250.0, 250.0] | 1.000 | 50% |" in text
    assert "| 8 views of 64 px, 3600 steps | **all** | 750.0 | | |" in text
    assert "whole run: 1.50 h; peak memory 3.0 GiB" in text
