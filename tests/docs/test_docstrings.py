"""The code in sections "Example:" of docstrings runs; examples with ">>>" are doctests."""

import ast
import re
from types import SimpleNamespace

import pytest
from fences import ROOT

SECTION = re.compile(r"^Examples?:\n((?: .*\n?|\n)+)", re.MULTILINE)


def sections():
    """Name of a class or function -> the code in its example."""
    found = {}
    for package in ("vlmreward", "vlmreward_3d"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    section = SECTION.search(ast.get_docstring(node) or "")
                    if section and ">>>" not in section[1]:
                        found[node.name] = re.findall(r"``(.+?)``", section[1], re.DOTALL)
    return found


EXAMPLES = sections()


@pytest.fixture
def names(offline):
    """Everything that the examples name, with small models."""
    import torch

    import vlmreward
    from vlmreward import YesNoReward, doctor, explain, integrations, wrappers
    from vlmreward.rewards import AnswerProbabilityReward
    from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion

    model = "Qwen/Qwen2.5-VL-7B-Instruct"
    first, second = YesNoReward(model, device="cpu"), YesNoReward("google/gemma-3-4b-it")
    return {
        **{name: getattr(vlmreward, name) for name in vlmreward.__all__},
        **{name: getattr(wrappers, name) for name in wrappers.__all__},
        "attribute": explain.attribute,
        "doctor": doctor,
        **{name: getattr(integrations, name) for name in integrations.__all__},
        "AnswerProbabilityReward": AnswerProbabilityReward,
        "AlignPropTrainer": lambda config, reward, prompts, pipeline: reward,
        "config": None,
        "prompt_function": None,
        "pipeline": lambda prompt, callback_on_step_end: SimpleNamespace(images=[None]),
        "StableDiffusion": StableDiffusion,
        "model": model,
        "first": first,
        "reward": first,
        "second": second,
        "other": second,
        "images": torch.rand(1, 3, 64, 64, requires_grad=True),
    }


def test_examples_are_found():
    assert len(EXAMPLES) >= 13
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, names):
    for code in EXAMPLES[name]:
        exec(code, names)
    if ".backward()" in code:
        assert names["images"].grad.abs().sum() > 0
