"""The nodes, run as ComfyUI's `execution.py` runs nodes of a workflow."""

from pathlib import Path

import import_graph
import pytest
import tiny_models
import torch

from vlmreward import YesNoReward
from vlmreward.integrations import comfyui_nodes
from vlmreward.integrations.comfyui_nodes import (
    NODE_CLASS_MAPPINGS,
    NODE_DISPLAY_NAME_MAPPINGS,
)

QUESTION = "Does this image show {prompt}?"


@pytest.fixture(scope="module")
def pair():
    return tiny_models.build("qwen2_5_vl")


@pytest.fixture(autouse=True)
def loads_the_tiny_model(monkeypatch, pair):
    monkeypatch.setattr(
        comfyui_nodes, "YesNoReward", lambda model, **options: YesNoReward(pair, **options)
    )


def execute(workflow):
    """ComfyUI's validation and execution of a workflow, for the parts of the protocol in use.

    A workflow maps ids to ``(class name, inputs)``; an input is a value, or ``[id, output]``.
    """
    outputs, shown = {}, {}
    with torch.inference_mode():
        for node, (name, inputs) in workflow.items():
            kind = NODE_CLASS_MAPPINGS[name]
            asked = kind.INPUT_TYPES()["required"]
            assert inputs.keys() == asked.keys()
            given = {}
            for key, (expected, *options) in asked.items():
                value = inputs[key]
                if isinstance(value, list):
                    source, index = value
                    produced = NODE_CLASS_MAPPINGS[workflow[source][0]].RETURN_TYPES[index]
                    assert produced == expected
                    given[key] = outputs[source][index]
                elif expected == "IMAGE":
                    given[key] = [value]
                else:
                    if isinstance(expected, list):
                        assert value in expected
                    elif expected == "INT":
                        assert options[0]["min"] <= value <= options[0]["max"]
                    given[key] = [value]
            length = max(map(len, given.values()))
            results = []
            for i in range(length):
                arguments = {key: values[min(i, len(values) - 1)] for key, values in given.items()}
                result = getattr(kind(), kind.FUNCTION)(**arguments)
                if isinstance(result, dict):
                    assert kind.OUTPUT_NODE
                    shown[node] = result["ui"]
                    result = result["result"]
                results.append(result)
            lists = getattr(kind, "OUTPUT_IS_LIST", (False,) * len(kind.RETURN_TYPES))
            assert len(lists) == len(kind.RETURN_TYPES) == len(results[0])
            outputs[node] = [
                [x for r in results for x in r[k]] if listed else [r[k] for r in results]
                for k, listed in enumerate(lists)
            ]
    return outputs, shown


def workflow(images, **further):
    load = {"model": "some/vlm", "question": QUESTION, "device": "cpu"}
    score = {"reward": ["1", 0], "images": images, "prompt": "a cat"}
    return {
        "1": ("LoadVLMReward", load),
        "2": ("ScoreImagesByVLMReward", score),
        "3": ("BestImagesByVLMReward", {**score, "count": 2, **further}),
    }


def test_images_are_scored_and_the_best_are_passed_on(pair):
    images = torch.rand(3, 40, 50, 3, generator=torch.Generator().manual_seed(0))
    outputs, shown = execute(workflow(images))
    expected = YesNoReward(pair, question=QUESTION)(images.movedim(-1, 1), prompt="a cat").detach()
    odds, chances, (report,) = outputs["2"]
    torch.testing.assert_close(torch.tensor(odds), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.tensor(chances), expected.sigmoid(), rtol=0, atol=1e-4)
    assert report.splitlines()[1].startswith(f"1: log-odds {odds[1]:+.3f}")
    assert shown["2"] == {"text": [report]}
    (best,) = outputs["3"][0]
    assert torch.equal(best, images[expected.argsort(descending=True)[:2]])
    (all_of_them,) = execute(workflow(images, count=9))[0]["3"][0]
    assert len(all_of_them) == 3


def test_the_reward_of_a_node_is_of_use_outside_of_inference_mode():
    outputs, _ = execute(workflow(torch.rand(1, 40, 50, 4)))  # with alpha
    (reward,) = outputs["1"][0]
    x = torch.rand(1, 3, 40, 50, requires_grad=True)
    reward(x, prompt="a cat").sum().backward()
    assert float(x.grad.abs().sum()) > 0


def test_a_question_without_a_prompt(pair):
    load = {"model": "some/vlm", "question": "Is this image sharp?", "device": "auto"}
    nodes = {**workflow(torch.rand(1, 40, 50, 3)), "1": ("LoadVLMReward", load)}
    assert len(execute(nodes)[0]["2"][0]) == 1


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_a_node_has_what_the_protocol_asks_for(name):
    kind = NODE_CLASS_MAPPINGS[name]
    assert NODE_DISPLAY_NAME_MAPPINGS.keys() == NODE_CLASS_MAPPINGS.keys()
    assert isinstance(kind.CATEGORY, str)
    assert callable(getattr(kind, kind.FUNCTION))
    assert isinstance(kind.RETURN_TYPES, tuple)
    assert len(kind.RETURN_NAMES) == len(kind.RETURN_TYPES)
    for value, *options in kind.INPUT_TYPES()["required"].values():
        assert isinstance(value, (str, list))
        assert all(isinstance(option, dict) for option in options)


def test_other_tensors_are_refused(pair):
    reward = YesNoReward(pair, question=QUESTION)
    with pytest.raises(ValueError, match=r"expected an IMAGE \(B, H, W, 3\)"):
        comfyui_nodes.ScoreImages().score(reward, torch.rand(3, 40, 50), "a cat")


def test_comfyui_is_not_imported():
    path = Path(comfyui_nodes.__file__)
    roots = {name.partition(".")[0] for name in import_graph.imported(path)}
    assert roots == {"__future__", "typing", "torch", "vlmreward"}
