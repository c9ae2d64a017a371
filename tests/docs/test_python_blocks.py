"""Every Python block of the README and the documentation runs, in the order of its page.

Models of the hub are small random ones of their architecture (see ``conftest.py``).
"""

import textwrap
from pathlib import Path

import pytest
from fences import ALL, PAGES, ROOT

NOT_RUN = {
    "docs/threestudio.md": "needs threestudio; test_threestudio_guidance.py runs it with its parts"
}
"""Pages whose blocks are run elsewhere, and where."""

IMAGES = "images = torch.rand(2, 3, 64, 64, requires_grad=True)"
BEFORE = {
    "README.md": f"Path('docs').symlink_to({str(ROOT / 'docs')!r})",
    "docs/index.md": IMAGES,
    "docs/processors.md": IMAGES,
    "docs/reward.md": f"{IMAGES}; model = 'Qwen/Qwen2.5-VL-7B-Instruct'",
    "docs/robustness.md": IMAGES,
    "docs/integrations.md": IMAGES,
    "docs/coming_from_threestudio.md": """
        import shutil
        from pathlib import Path
        import vlmreward_3d
        tests = Path(vlmreward_3d.__file__).parents[1] / "tests/vlmreward_3d/threestudio"
        shutil.copy(tests / "dreamfusion.yaml", "dreamfusion-sd.yaml")
    """,
    "docs/explain.md": "images = 0.4 + 0.2 * torch.rand(1, 2, 3, 64, 64)",
    "docs/doctor.md": "",
    "docs/add_a_family.md": "",
    "docs/presets.md": "",
    "docs/blocks.md": "",
    "docs/text_to_3d.md": "reward = lambda images: images.mean((1, 2, 3))",
}
"""Names that a reader has and the page does not make."""

GRADIENT = "assert r.shape == (2,) and images.grad.abs().sum() > 0"
PICTURE = "assert Path('why.png').stat().st_size > 1000"
AFTER = {
    "docs/add_a_family.md": """
        model, processor = Glm4v.members[0].tiny()
        assert model.config.model_type == "glm4v"
    """,
    "README.md": f"assert r.item() > 3 and images.grad.abs().sum() > 0; {PICTURE}",
    "docs/index.md": GRADIENT,
    "docs/processors.md": """
        assert images.grad.abs().sum() > 0
        # other tests may have left attributes at the package's own class
        own = {k: v.__code__ for k, v in vars(CLIPProcessor).items() if hasattr(v, "__code__")}
        ours = vars(processors.clip.CLIPProcessor)
        assert own and all(ours[k].__code__.co_code == v.co_code for k, v in own.items())
    """,
    "docs/reward.md": """
        values = reward.per_reward(images, prompt="a cat")
        assert [value.shape for value in values.values()] == [(2,), (2,)]
    """,
    "docs/robustness.md": """
        assert images.grad.abs().sum() > 0 and seen.shape == images.shape
        assert reward(images, prompt="a cat").shape == (2,)
    """,
    "docs/integrations.md": """
        assert 0 < float(metric.compute()) < 1 and len(guidance.rewards) > 5
        assert images.grad.abs().sum() > 0 and len(NODE_CLASS_MAPPINGS) == 3
        assert judge(images, prompt="a cat").shape == (2,)
    """,
    "docs/coming_from_threestudio.md": "assert config.vlm and len(found.left_out) == 3",
    "docs/explain.md": f"""
        assert why.attribution.shape == (1, 2, 64, 64) and why.views.shape == (1, 2)
        {PICTURE}
    """,
    "docs/presets.md": "assert config.field.levels == 16 and config.vlm.weighting.interval == 4; "
    "assert of_latents.field.renders_latents",
    "docs/text_to_3d.md": "assert model.step().metrics['clip/reward'] > 0",
    "docs/blocks.md": "assert Path('compositions.png').stat().st_size > 1000",
    "docs/doctor.md": "assert finding.status == 'OK'",
}
"""Conditions that hold when all blocks of a page have run."""


def python_of(page):
    return [block for block in ALL if block.page == page and block.language == "python"]


def test_every_page_with_python_is_run_or_listed():
    assert {page for page in PAGES if python_of(page)} == BEFORE.keys() | NOT_RUN.keys()
    assert AFTER.keys() == BEFORE.keys()


@pytest.mark.parametrize("page", BEFORE)
def test_python_runs(page, offline):
    import torch

    torch.manual_seed(0)
    names = {"__name__": "page"}
    exec(textwrap.dedent(BEFORE[page]), {"torch": torch, "Path": Path}, names)
    for block in python_of(page):
        code = "\n" * (block.line - 1) + block.code  # so that tracebacks have the page's lines
        exec(compile(code, page, "exec"), names)
    exec(textwrap.dedent(AFTER[page]), {**names, "Path": Path})
