"""Reward3D: both heads against a forward written down again, and files that are none of it."""

import pytest
import torch
import torch.nn.functional as F
from reward3d_reference import HEAD_CHANNELS, random_state, reward
from safetensors.torch import save_file
from torch.testing import assert_close

from vlmreward.models.families import tiny
from vlmreward.models.reward3d import Reward3DNetwork
from vlmreward.rewards.reward3d import Reward3D

KINDS = ["scorer", "fusion"]
TOKENIZER = tiny.tokenizer([])
CLIP = (
    torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64)[:, None, None],
    torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64)[:, None, None],
)


def state_of(kind):
    return random_state(kind, words=len(TOKENIZER))


def build(kind, dtype=torch.float64):
    network = Reward3DNetwork.from_state(state_of(kind), head_channels=HEAD_CHANNELS)
    return Reward3D(network.to(dtype), TOKENIZER)


def pictures(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def expected(kind, images, texts):
    """The reward of images of 8 pixels, which are neither resized nor cropped."""
    state = {k: v.double() if v.is_floating_point() else v for k, v in state_of(kind).items()}
    pixels = (images.flatten(0, 1) - CLIP[0]) / CLIP[1]
    told = TOKENIZER(texts, padding=True, return_tensors="pt")
    return reward(state, kind, pixels, told["input_ids"], told["attention_mask"])


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_and_gradients_equal_the_formula(kind):
    model, images = build(kind), pictures(2, 4, 3, 8, 8).requires_grad_()
    prompts = ["a red cube", "a cat"]  # of different lengths, so that one is padded
    found = model(images, prompts)
    theirs = expected(kind, images, [prompt for prompt in prompts for _ in range(4)])
    assert_close(found, theirs, rtol=1e-9, atol=1e-11)
    assert (found[0] - found[1]).abs() > 1e-3
    ours, gradient = (torch.autograd.grad(x.sum(), images)[0] for x in (found, theirs))
    assert_close(ours, gradient, rtol=1e-7, atol=1e-12)
    assert (ours.abs().amax((2, 3, 4)) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_each_view_can_have_a_text_of_its_own(kind):
    model, images = build(kind), pictures(1, 4, 3, 8, 8)
    sides = [f"a cat, {side}" for side in ("front", "side", "back", "side")]
    found = model.of_views(images, [sides])
    assert_close(found, expected(kind, images, sides), rtol=1e-9, atol=1e-11)
    assert (found - model(images, "a cat")).abs() > 1e-6


def test_the_order_of_the_views_matters_to_the_scorer_alone():
    images = pictures(1, 4, 3, 8, 8)
    turned = images[:, [1, 2, 3, 0]]
    fusion, scorer = build("fusion"), build("scorer")
    assert_close(fusion(images, "a cat"), fusion(turned, "a cat"))
    assert (scorer(images, "a cat") - scorer(turned, "a cat")).abs() > 1e-5


def test_larger_images_are_resized_and_cropped():
    model, images = build("fusion"), pictures(1, 4, 3, 16, 24, seed=1).requires_grad_()
    found = model(images, "a cat")
    flat = F.interpolate(images.flatten(0, 1), (8, 12), mode="bicubic", antialias=True)
    theirs = expected("fusion", flat[None, ..., 2:10], ["a cat"] * 4)
    assert_close(found, theirs, rtol=1e-5, atol=1e-6)
    assert torch.autograd.grad(found.sum(), images)[0].abs().max() > 0


def test_a_query_s_value_does_not_depend_on_the_others_and_types_are_kept():
    model = build("scorer", torch.float32)
    images = pictures(3, 4, 3, 8, 8).float()
    found = model(images, ["a cat", "a red cube on a table", "a dog"])
    assert found.dtype == torch.float32
    assert_close(found[:1], model(images[:1], "a cat"))
    assert_close(model(images[1:2], "a red cube on a table"), found[1:2])
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_loaded(kind, suffix, tmp_path):
    TOKENIZER.save_pretrained(tmp_path / "bert")
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(state_of(kind), file)
    else:
        save_file(state_of(kind), file)
    loaded = Reward3D.from_checkpoint(
        file, tokenizer=tmp_path / "bert", dtype=torch.float64, head_channels=HEAD_CHANNELS
    )
    images = pictures(1, 4, 3, 8, 8)
    assert_close(loaded(images, "a cat"), build(kind)(images, "a cat"))


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_have_to_fit(kind, tmp_path):
    state, file = state_of(kind), tmp_path / "weights.pt"
    for changed, message in (
        ({"blip.visual_encoder.blocks.1.norm1.bias": None}, "vision encoder does not fit: Missing"),
        ({"blip.text_encoder.encoder.layer.0.output.dense.bias": None}, "text encoder does not"),
        ({"mlp.layers.4.weight": torch.zeros(2, 2)}, "head does not fit: size mismatch"),
        ({"other.weight": torch.zeros(1)}, "head does not fit: Unexpected"),
        ({"blip.visual_encoder.cls_token": None}, "cls_token is missing"),
        ({"blip.text_encoder.pooler.dense.bias": torch.zeros(1)}, "text encoder does not fit: Un"),
    ):
        wrong = {k: v for k, v in {**state, **changed}.items() if v is not None}
        torch.save(wrong, file)
        with pytest.raises(ValueError, match=f"is not Reward3D .*{message}.*; expected Reward3D_"):
            Reward3D.from_checkpoint(file, head_channels=HEAD_CHANNELS)
    neither = {k: v for k, v in state.items() if not k.startswith(("Scorer", "cross_view"))}
    torch.save(neither, file)
    with pytest.raises(ValueError, match=r"neither 'Scorer\.fc1\.weight' nor"):
        Reward3D.from_checkpoint(file, head_channels=HEAD_CHANNELS)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("none.pt", "some/where/else.pt", "damaged.pt", "list.pt", "weights.bin"):
        with pytest.raises(OSError, match=r"cannot load .*; expected Reward3D_Scorer\.pt"):
            Reward3D.from_checkpoint(tmp_path / name if "/" not in name else name)
    torch.save(state_of("fusion"), tmp_path / "weights.pt")
    with pytest.raises(OSError, match=r"cannot load the tokenizer .*pass tokenizer="):
        Reward3D.from_checkpoint(
            tmp_path / "weights.pt", tokenizer=tmp_path / "none", head_channels=HEAD_CHANNELS
        )


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (pictures(1, 3, 3, 8, 8), {"prompt": "a"}, ValueError, r"\[3\] views a query; expected 4"),
        (pictures(4, 3, 8, 8), {"prompt": "a"}, ValueError, r"\[1\] views a query; expected 4"),
        (pictures(2, 4, 3, 8, 8), {"prompt": ["a"]}, ValueError, "4 texts for 1 queries with 2"),
        (pictures(1, 4, 3, 8, 8), {}, ValueError, r"values \[\]; expected the prompt alone"),
        (pictures(1, 4, 3, 8, 8), {"prompt": "a", "x": "b"}, ValueError, "'prompt', 'x'"),
        (pictures(1, 4, 3, 8, 8) + 1, {"prompt": "a"}, ValueError, "1"),
        (pictures(1, 4, 3, 8, 8), {"prompt": [3]}, TypeError, "received 3 among the texts"),
    ],
)
def test_bad_calls_are_refused(images, options, error, message):
    with pytest.raises(error, match=message):
        build("fusion")(images, **options)
    with pytest.raises(ValueError, match="3 texts for 1 queries"):
        build("fusion").of_views(pictures(1, 4, 3, 8, 8), [["a", "b", "c"]])
