"""The private names of transformers are where ``models/_transformers_private.py`` expects them."""

import torch
from transformers import PreTrainedModel

from vlmreward.models import _transformers_private as private

WHAT_TO_DO = (
    "transformers has moved a private name: adapt vlmreward/models/_transformers_private.py, the "
    "only file that uses it"
)


def vision_tower(model):
    return next(
        m for m in model.modules() if isinstance(m, PreTrainedModel) and hasattr(m, "patch_embed")
    )


def test_configurations_name_their_attention(family_pair):
    for key in ("qwen2_5_vl", "llava"):
        model, _ = family_pair(key)
        name = private.attention_of(model.config.get_text_config())
        assert name == "sdpa", f"{WHAT_TO_DO}: attention_of() is {name!r}, expected 'sdpa'"


def test_another_attention_is_called_with_the_boundaries_of_images(family_pair):
    """An attention gets the boundaries because its name contains "flash"."""
    model, _ = family_pair("qwen2_5_vl")
    tower = vision_tower(model)
    seen = []

    def attention(module, query, key, value, mask=None, **options):
        seen.append(options.get("cu_seq_lens_q"))
        return value.transpose(1, 2), None

    before = private.attention_of(tower.config)
    try:
        private.register_packed_attention(attention)
        private.set_attention(tower.config, private.PACKED_ATTENTION)
        tower(torch.randn(16, 1176), grid_thw=torch.tensor([[1, 4, 4]]))
    finally:
        from vlmreward.models._acceleration.window_attention import window_attention

        private.register_packed_attention(window_attention)
        private.set_attention(tower.config, before)
    assert len(seen) == len(tower.blocks), f"{WHAT_TO_DO}: set_attention() changes nothing"
    assert all(isinstance(bounds, torch.Tensor) for bounds in seen), (
        f"{WHAT_TO_DO}: PACKED_ATTENTION is given no cu_seq_lens_q"
    )


def test_no_other_file_uses_private_names():
    from pathlib import Path

    import vlmreward
    import vlmreward_3d

    packages = [Path(package.__file__).parent for package in (vlmreward, vlmreward_3d)]
    found = [
        path.name
        for package in packages
        for path in package.rglob("*.py")
        if "_attn_implementation"
        in path.read_text(encoding="utf-8").replace("set_attn_implementation", "")
        or "AttentionInterface" in path.read_text(encoding="utf-8")
    ]
    assert found == ["_transformers_private.py"]
