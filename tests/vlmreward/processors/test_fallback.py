"""Processors without a counterpart here go through Hugging Face's own, behind the contract."""

import pytest
import torch
from transformers import Qwen2VLImageProcessor, ViTImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from vlmreward import processors
from vlmreward.processors.fallback import FallbackProcessor


@pytest.fixture
def vit():
    with pytest.warns(UserWarning, match=r"ViTImageProcessor has no counterpart.*not clamped"):
        return processors.from_hf(ViTImageProcessor())


def test_takes_unit_range_and_equals_hf_on_levels(vit):
    images = (torch.rand(2, 3, 50, 70) * 255).round() / 255
    ours = vit(images)["pixel_values"]
    levels = (images * 255).round().to(torch.uint8)
    theirs = ViTImageProcessor()(levels, return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1.01 / 255 / 0.5  # HF rounds what it resizes


def test_gradient_arrives_and_is_named(vit):
    images = torch.rand(2, 3, 50, 70, requires_grad=True)
    vit(images)["pixel_values"].sum().backward()
    assert images.grad.abs().sum() > 0
    assert vit.gradient == "exact"


def test_keeps_the_contract(vit):
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        vit(torch.rand(1, 3, 9, 9) * 255)
    with pytest.raises(TypeError, match="floating"):
        vit(torch.zeros(1, 3, 9, 9, dtype=torch.uint8))


def test_a_subclass_is_not_taken_for_its_parent():
    class Changed(Qwen2VLImageProcessor):
        pass

    with pytest.warns(UserWarning, match="Changed has no counterpart"):
        assert isinstance(processors.from_hf(Changed()), FallbackProcessor)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(TypeError, match=r"ViTImageProcessorPil.*torchvision backend"):
        processors.from_hf(ViTImageProcessorPil())
    with pytest.raises(ValueError, match=r"'uint8'.*expected 'float'"):
        processors.from_hf(ViTImageProcessor(), pixel_mode="uint8")


def test_a_processor_that_stops_gradients_is_refused():
    class Stops(ViTImageProcessor):
        def _preprocess(self, images, **kwargs):
            return super()._preprocess([image.detach() for image in images], **kwargs)

    with pytest.raises(TypeError, match="no gradient comes through Stops"):
        processors.from_hf(Stops())
