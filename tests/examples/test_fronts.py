"""Both judges of fronts: objects whose fronts are known are counted."""

import math
import sys

import front_judge
import front_templates
import pytest
import torch
from front_judge import FrontJudge, load_front_judge, render_objects
from front_templates import FrontTemplates, layouts, with_fronts
from judge import target
from measures import FRONT_MEASURES, Measuring
from template_reader import cameras_of_runs, on_white


@pytest.fixture(scope="module")
def templates():
    patch = pytest.MonkeyPatch()
    patch.setattr(front_templates, "YAWS", 8)
    yield FrontTemplates(cameras_of_runs())
    patch.undo()


@pytest.mark.parametrize("quarters", layouts("mug"))
def test_templates_count_the_handles_of_a_mug(templates, quarters):
    for yaw, color in ((0.3, "red"), (2.5, "yellow")):
        scene = with_fronts("mug", color, quarters, yaw, size=0.57)
        views = on_white(scene, templates.cameras)
        assert templates.count(views, "mug", color) == len(quarters)


def test_a_car_has_fronts_at_its_ends_alone():
    assert [len(x) for x in layouts("car")] == [0, 1, 2]
    assert [len(x) for x in layouts("chair")] == [0, 1, 2, 2, 3, 4]
    assert with_fronts("chair", "red", (1,), 0.0).things[0].fronts == (math.pi / 2,)


def test_the_network_does_not_mind_where_a_turntable_begins():
    torch.manual_seed(0)
    judge = FrontJudge(width=4)
    images = torch.rand(3, 8, 3, 64, 64)
    logits = judge(images)
    assert logits.shape == (3, 3)
    assert logits.std(0).min() > 1e-6
    torch.testing.assert_close(judge(images.roll(3, 1)), logits, rtol=1e-4, atol=1e-5)
    reversed_order = judge(images[:, torch.tensor([0, 4, 2, 6, 1, 5, 3, 7])])
    assert (reversed_order - logits).abs().max() > 1e-5
    assert judge.count(images[1]) == logits[1].argmax()


def test_objects_are_rendered_once(tmp_path):
    path = tmp_path / "new" / "objects.safetensors"
    rgba, classes = render_objects(path, 9, 3)
    assert rgba.shape == (9, 8, 64, 64, 4)
    assert {*classes.tolist()} == {0, 1, 2}
    stamp = path.stat().st_mtime_ns
    again = render_objects(path, 9, 3)
    assert torch.equal(again[0], rgba)
    assert torch.equal(again[1], classes)
    assert path.stat().st_mtime_ns == stamp


def test_training_writes_a_judge_that_can_be_loaded(tmp_path, monkeypatch, capsys):
    render = front_judge.render_objects
    monkeypatch.setattr(front_judge, "render_objects", lambda path, _, seed: render(path, 6, seed))
    words = ["--data", str(tmp_path / "d"), "--out", str(tmp_path / "o")]
    words += ["--steps", "2", "--batch", "4", "--no-bf16"]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    front_judge.main()
    assert "of 6 unseen objects counted right" in capsys.readouterr().out
    judge = load_front_judge(tmp_path / "o" / "front_judge.safetensors")
    assert judge.count(torch.rand(8, 3, 64, 64)) in (0, 1, 2)


@pytest.mark.parametrize(("network", "nearest"), [(1, 1), (0, 4), (2, 0)])
def test_counts_become_measures(monkeypatch, network, nearest):
    class Says:
        def count(self, views, *words):
            assert words in ((), ("mug", "green"))
            return nearest if words else network

    measuring = Measuring.__new__(Measuring)
    measuring.front_network = measuring.front_templates = Says()
    found = measuring.fronts(torch.zeros(8, 3, 64, 64), target(None, [("green", "mug")]))
    assert found.keys() == FRONT_MEASURES.keys()
    assert sum(v for k, v in found.items() if k.endswith("network")) == 1
    names = {0: "none", 1: "one front"}
    for judge, count in (("network", network), ("templates", nearest)):
        assert found[f"{names.get(count, 'several')}, {judge}"] == 1
    assert measuring.fronts(torch.zeros(8, 3, 64, 64), target(None, [("green", "cube")])) == {}
    measuring.front_network = None
    assert measuring.fronts(torch.zeros(8, 3, 64, 64), target(None, [("green", "mug")])) == {}
