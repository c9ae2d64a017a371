"""The code in the document, executed against the part of threestudio's interface that it uses."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import vlmreward

DOCUMENT = Path(__file__).parents[2] / "examples" / "threestudio_guidance.md"
PROMPT = SimpleNamespace(prompt="a red cube")


class BaseObject:
    """Made of a configuration, then configured; update_step reaches attributes of this kind."""

    @dataclass
    class Config:
        pass

    def __init__(self, cfg=None, *args, **kwargs):
        self.cfg = self.Config(**(cfg or {}))
        self.device = torch.device("cpu")
        self.configure(*args, **kwargs)

    def do_update_step(self, epoch, global_step, on_load_weights=False):
        for name in dir(self):
            if not name.startswith("_") and isinstance(getattr(self, name), BaseObject):
                getattr(self, name).do_update_step(epoch, global_step, on_load_weights)
        self.update_step(epoch, global_step, on_load_weights)

    def update_step(self, epoch, global_step, on_load_weights=False):
        pass

    def configure(self, *args, **kwargs):
        pass


@pytest.fixture
def threestudio(monkeypatch):
    """Those modules of threestudio that the document imports, with another guidance registered."""
    classes = {}
    package = ModuleType("threestudio")
    package.register = lambda name: lambda cls: classes.setdefault(name, cls)
    package.find = classes.__getitem__
    utils, base = ModuleType("threestudio.utils"), ModuleType("threestudio.utils.base")
    base.BaseObject = BaseObject
    for module in (package, utils, base):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    @package.register("score-distillation")
    class ScoreDistillation(BaseObject):
        @dataclass
        class Config(BaseObject.Config):
            scale: float = 1.0

        steps = ()

        def update_step(self, epoch, global_step, on_load_weights=False):
            self.steps += (global_step,)

        def __call__(self, rgb, prompt_utils, elevation, rgb_as_latents=False, **kwargs):
            assert elevation.shape == (len(rgb),)
            return {"loss_sds": self.cfg.scale * rgb.square().sum(), "grad_norm": rgb.norm()}

    class Brightness:
        """A stand-in for the VLM: twice the mean over all views of a question."""

        def __init__(self, model, *, question, device):
            self.made_of = (model, question, device)

        def __call__(self, images, prompt):
            assert images.ndim == 5
            assert images.shape[2] == 3
            assert prompt == "a red cube"
            self.sizes = {tuple(images.shape[3:])}
            return 2 * images.mean((1, 2, 3, 4))

    monkeypatch.setattr(vlmreward, "YesNoReward", Brightness)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "extension"})
    return package


def make(threestudio, **cfg):
    return threestudio.find("vlm-reward-guidance")(cfg)


def renderings(views=4):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(views, 8, 8, 3, generator=generator).requires_grad_()


def test_the_loss_is_the_negative_mean_reward_with_its_gradient(threestudio):
    guidance = make(threestudio, model="some/vlm", n_views=2)
    assert guidance.reward.made_of == ("some/vlm", "paper/selected", torch.device("cpu"))
    rgb = renderings()
    out = guidance(rgb, PROMPT, elevation=torch.zeros(4), c2w=None)
    torch.testing.assert_close(out["loss_vlm"], -2 * rgb.mean())
    torch.testing.assert_close(out["vlm_reward"], 2 * rgb.mean().detach())
    out["loss_vlm"].backward()
    torch.testing.assert_close(rgb.grad, torch.full_like(rgb, -2 / rgb.numel()))
    assert guidance.reward.sizes == {(256, 256)}
    make(threestudio, size=32)(renderings().half(), PROMPT)["loss_vlm"].backward()


def test_the_base_guidance_keeps_its_losses_and_its_updates(threestudio):
    guidance = make(threestudio, base_type="score-distillation", base={"scale": 3.0})
    rgb = renderings()
    guidance.do_update_step(0, 7)
    out = guidance(rgb, PROMPT, elevation=torch.zeros(4))
    torch.testing.assert_close(out["loss_sds"], 3 * rgb.square().sum())
    assert set(out) == {"loss_sds", "grad_norm", "loss_vlm", "vlm_reward"}
    assert guidance.base.steps == (7,)


def test_steps_between_cost_nothing(threestudio):
    guidance = make(threestudio, every=3)
    guidance.reward = None
    guidance.do_update_step(0, 4)
    assert float(guidance(renderings(), PROMPT)["loss_vlm"]) == 0


def test_wrong_renderings_are_refused(threestudio):
    guidance = make(threestudio, n_views=4)
    with pytest.raises(ValueError, match="received 3 views; expected a multiple of 4"):
        guidance(renderings(3), PROMPT)
    with pytest.raises(ValueError, match=r"expected RGB"):
        guidance(torch.rand(4, 8, 8, 4), PROMPT)
    with pytest.raises(ValueError, match=r"expected RGB"):
        guidance(renderings(), PROMPT, rgb_as_latents=True)
