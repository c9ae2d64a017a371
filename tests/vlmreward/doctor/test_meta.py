"""The doctor without weights: sizes, layouts, and the formulas of its estimate."""

import json
from pathlib import Path

import published_models
import pytest
import tiny_models
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

from vlmreward.cli import main
from vlmreward.doctor import describe, report_lines
from vlmreward.doctor.architecture import towers
from vlmreward.doctor.estimate import GPU, GPUS, Work, step_cost
from vlmreward.models.meta_loading import load_on_meta
from vlmreward.utils.saved_tensors import counted_bytes

KNOWN = [name for name in published_models.NAMES if published_models.facts(name)["parameters"]]
SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}


@pytest.fixture
def folder(tmp_path):
    """A checkpoint's name -> a folder with all of its files but the weights."""

    def written(name):
        published_models.write_folder(name, tmp_path, small=False)
        return tmp_path

    return written


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_as_many_as_published(name, folder):
    vlm = load_on_meta(folder(name)).vlm
    assert {parameter.device.type for parameter in vlm.parameters()} == {"meta"}
    vision, text, connector = towers(vlm)
    expected = published_models.facts(name)["parameters"]
    assert vision.parameters + text.parameters + connector == expected
    assert len(text.layers) == vlm.config.get_text_config().num_hidden_layers
    tower = vlm.config.vision_config
    assert len(vision.layers) == (getattr(tower, "depth", 0) or tower.num_hidden_layers)


def test_windows_are_those_of_the_configuration(folder):
    vision, _, _ = towers(load_on_meta(folder("Qwen2.5-VL-3B-Instruct")).vlm)
    whole = [i for i, layer in enumerate(vision.layers) if not layer.window]
    assert whole == [7, 15, 23, 31]
    assert {layer.window for layer in vision.layers} == {0, 64}  # 112 pixels in patches of 14


@pytest.mark.parametrize(
    ("name", "added", "shown"),
    [
        ("Qwen2.5-VL-7B-Instruct", [81, 324, 1369], "<|vision_start|><|image_pad|> x 81<|vision_e"),
        ("paligemma-3b-mix-448", [1024] * 3, "<image> x 1024<bos>Does this image show a red ball?"),
        # 17 tiles, with their names letter by letter
        (
            "SmolVLM-Instruct",
            [17 * 81] * 3,
            "<image> x 81<fake_token_around_image><row_1_col_2><image>",
        ),
    ],
)
def test_layout_is_that_of_the_processor(name, added, shown, folder):
    report = describe(folder(name))
    assert report.prompt.count(shown) == 1
    assert report.dtype == "bfloat16"
    assert [*report.image_tokens.values()] == added
    runs = [int(part.split("<")[0]) for part in report.prompt.split(" x ")[1:]]
    assert sum(runs) == added[0] < report.tokens


def language_model(attention):
    config = hf.LlamaConfig(
        **SIZES, num_key_value_heads=4, num_hidden_layers=3, attn_implementation=attention
    )
    config.vocab_size = 50
    x = torch.randn(1, 40, 64, requires_grad=True)
    return hf.LlamaModel(config), {"inputs_embeds": x}, 40


def vision_tower(attention):
    config = hf.SiglipVisionConfig(
        **SIZES, num_hidden_layers=3, image_size=84, vision_use_head=False, patch_size=14
    )
    config._attn_implementation = attention
    return hf.SiglipVisionModel(config), {"pixel_values": torch.randn(1, 3, 84, 84)}, 36


@pytest.mark.parametrize("made", [language_model, vision_tower])
def test_operations_are_those_that_are_counted(made):
    """Matrix operations agree exactly, less the 2 A N N that plain attention does not repeat."""
    model, inputs, n = made("eager")
    model.requires_grad_(False).eval()
    vision, text, _ = towers(model)
    layers = text.layers + vision.layers
    cost = step_cost(*towers(model), Work((n,), n, n), item_size=4)
    if "pixel_values" in inputs:  # from the first layer on, as no patch is embedded in the formula
        model.embeddings.register_forward_hook(lambda *call: call[-1].requires_grad_())
    with FlopCounterMode(display=False) as counter:
        model(**inputs).last_hidden_state.sum().backward()
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    counted = sum(count for op, count in counts.items() if "conv" not in op)
    again = sum(2 * layer.attention * n * n for layer in layers)
    assert cost.operations - again == counted


@pytest.mark.parametrize("made", [language_model, vision_tower])
def test_memory_is_that_which_is_kept(made):
    model, inputs, n = made("sdpa")
    model.requires_grad_(False).eval()
    cost = step_cost(*towers(model), Work((n,), n, n), item_size=4)
    if "pixel_values" in inputs:
        model.embeddings.register_forward_hook(lambda *call: call[-1].requires_grad_())
    with counted_bytes(model) as kept:
        model(**inputs)
    assert cost.kept == pytest.approx(sum(kept.values()), rel=0.1)


def test_cost_by_hand():
    """A language model of one layer, of which every number is known."""
    config = hf.LlamaConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=1)
    config.vocab_size = 50
    vision, text, connector = towers(hf.LlamaModel(config))
    (layer,) = text.layers
    assert layer.weights == 64 * (64 + 32 + 32 + 64) + 3 * 64 * 160
    assert (layer.width, layer.attention, layer.window) == (64, 64, 0)
    assert (layer.saved, layer.saved_float32) == (4 * 64 + 3 * 160, 2 * 64)
    cost = step_cost(vision, text, connector, Work((), 0, 10), item_size=2)
    assert cost.operations == 4 * layer.weights * 10 + 14 * 64 * 10 * 10
    assert cost.kept == 10 * (2 * layer.saved + 4 * layer.saved_float32)
    assert cost.kept_checkpoint == cost.kept + 10 * 64 * 2
    assert cost.weights == 2 * text.parameters
    fast = GPU(flops=1e12, memory=1e9, bandwidth=1e20)
    assert cost.seconds(fast, utilization=0.5) == pytest.approx(cost.operations / 5e11)
    slow = GPU(flops=1e30, memory=1e9, bandwidth=1e6)
    assert cost.seconds(slow) == pytest.approx(2 * cost.weights / 1e6)


def test_command_prints_and_writes_the_report(folder, tmp_path, capsys):
    path = folder("Qwen2.5-VL-7B-Instruct")
    out = tmp_path / "report.json"
    assert main(["doctor", str(path), "--meta", "--gpu", "A100", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    report = describe(path, gpu="A100")
    assert printed.splitlines() == report_lines(report)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["parameters"]["all"] == 8292166656
    cost = report.costs["8x1024"]
    assert written["costs"]["8x1024"]["seconds"] == cost.seconds(GPUS["A100"])
    assert cost.peak > GPUS["A100"].memory > cost.peak_checkpoint
    assert f"{cost.peak / 2**30:.1f}!" in printed
    assert "estimate" in printed
    assert "not measured" in printed


def test_table_of_the_documentation(folder):
    page = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")
    report = describe(folder("Qwen2.5-VL-7B-Instruct"), gpu="H100")
    for views in (1, 8):
        cells = []
        for side in (256, 512, 1024):
            cost = report.costs[f"{views}x{side}"]
            peaks = f"{cost.peak / 2**30:.1f} ({cost.peak_checkpoint / 2**30:.1f})"
            cells.append(f"{cost.seconds(GPUS['H100']):.2f} s, {peaks} GB")
        assert f"| {views} | {' | '.join(cells)} |" in page
    for name in GPUS:
        assert name in page


def test_quantized_checkpoints_are_said_to_be(folder):
    path = folder("Qwen2-VL-2B-Instruct")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    report = describe(path)
    assert report.quantized
    assert "is quantized, counted as if it were not" in report_lines(report)[1]


def test_a_model_that_reads_a_single_image_otherwise(tmp_path):
    """LLaVA-OneVision cuts up one image, and not several; it goes the common way."""
    model, processor = tiny_models.build("llava_onevision")
    for part in (model.config, processor):
        part.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="has no counterpart"):
        report = describe(tmp_path)
    kept = [report.costs[f"{views}x256"].kept for views in (2, 4, 8)]
    assert kept[0] < kept[1] < kept[2]
    assert 2 * (kept[1] - kept[0]) == kept[2] - kept[1]


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="gpu is 'B1'; expected one of H200"):
        describe("builtin/blocks", gpu="B1")
    with pytest.raises(OSError, match=r"cannot load .*expected a folder"):
        describe(tmp_path)
    with pytest.raises(ValueError, match="answers share the token"):
        describe("builtin/blocks", answers=("Yes", "Yes"))
