import json

import finetune_diffusion
import pytest
import torch
from samplers import load_sampler
from test_samplers import options

from vlmreward import YesNoReward
from vlmreward.integrations.diffusion_trainers import trainer_reward

WEIGHTS = "pytorch_lora_weights.safetensors"
FILES = {"pictures.png", "curves.png", "metrics.jsonl", WEIGHTS}


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_built_in_models_learn_and_the_adapter_holds_what_they_learnt(tmp_path, capsys):
    words = ["--steps", "12", "--batch", "2", "--sampler-steps", "2", "--out", str(tmp_path)]
    assert finetune_diffusion.main(words) == 0
    assert {p.name for p in tmp_path.iterdir()} == FILES
    seen = [line for line in metrics(tmp_path) if "prompt" in line]
    assert [line["asked"] for line in seen[-3:]] == ["a red cone", "a red car", "a red snowman"]
    gains = [line["after"] - line["before"] for line in seen]
    assert sum(gains) / len(gains) > 1
    said = capsys.readouterr().out
    assert "trained on: " in said
    assert "held out: " in said

    # A fresh sampler with the adapter makes what the trained one made
    sampler = load_sampler(options())
    sampler.network.load_lora_adapter(tmp_path, prefix=None, weight_name=WEIGHTS)
    vlm = YesNoReward("builtin/blocks", device="cpu")
    reward = trainer_reward(vlm, make_prompt=lambda told, asked: asked)
    prompts = [(line["prompt"], line["asked"]) for line in seen]
    _, rewards = finetune_diffusion.look(sampler, reward, prompts, 1)
    torch.testing.assert_close(
        torch.tensor(rewards),
        torch.tensor([line["after"] for line in seen]),
        rtol=1e-3,
        atol=1e-2,
    )


def test_a_pipeline_of_diffusers_and_files_of_prompts(tmp_path, pipeline_folder):
    train, other = tmp_path / "train.txt", tmp_path / "other.txt"
    train.write_text("a cube -> a red cube\n\na mug\n")
    other.write_text("a cone\n")
    words = ["--prompts", train, "--held-out", other, "--diffusion", pipeline_folder]
    words += ["--steps", 2, "--batch", 1, "--sampler-steps", 2, "--last", 2, "--lr", "1e-3"]
    assert finetune_diffusion.main([str(w) for w in [*words, "--out", tmp_path / "run"]]) == 0
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES
    seen = [(line["prompt"], line["asked"]) for line in metrics(tmp_path / "run")[2:]]
    assert seen == [("a cube", "a red cube"), ("a mug", "a mug"), ("a cone", "a cone")]


def test_only_the_adapter_is_trained(pipeline):
    """A step changes LoRA's weights alone."""
    sampler = finetune_diffusion.load_sampler(options())
    sampler.network.add_adapter(
        finetune_diffusion.LoraConfig(r=2, target_modules=finetune_diffusion.ATTENTION)
    )
    before = {name: p.clone() for name, p in sampler.network.named_parameters()}
    finetune_diffusion.train(
        sampler,
        lambda images, prompts, metadata: (images.mean((1, 2, 3, 4)), {}),
        [("a cube", "a red cube")],
        torch.Generator().manual_seed(0),
        steps=1,
        batch=1,
        lr=1e-2,
        last=1,
    )
    changed = {n for n, p in sampler.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--last", "9"], "expected at most --sampler-steps"),
        (["--prompts", "x.txt"], "expected both --prompts and --held-out"),
        (["--lr", "0"], "expected a number > 0"),
    ],
)
def test_mistakes_in_the_command(words, message, capsys):
    with pytest.raises(SystemExit):
        finetune_diffusion.main(words)
    assert message in capsys.readouterr().err


def test_bad_files(refused, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    both = ["--prompts", empty, "--held-out", empty, "--out", tmp_path / "run"]
    assert "is empty; expected a prompt a line" in refused(finetune_diffusion.main, *both)
    both[1] = tmp_path / "none.txt"
    assert "none.txt" in refused(finetune_diffusion.main, *both)
