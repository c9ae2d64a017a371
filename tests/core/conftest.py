import functools
import os

import pytest
import tiny_models
import tiny_qwen
import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
settings.register_profile("core", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "core")
torch.manual_seed(0)


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen2_vl"])
def family(request):
    return request.param


@pytest.fixture(scope="session")
def pair(family):
    """A (model, processor) pair; shared, so a test that changes it takes a copy."""
    processor = tiny_qwen.processor(family)
    return tiny_qwen.model(family, processor.tokenizer), processor


@pytest.fixture(scope="session")
def folder(family, pair, tmp_path_factory):
    """The same pair saved as transformers saves models."""
    path = tmp_path_factory.mktemp(family)
    model, processor = pair
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def family_pair():
    """Family -> its tiny (model, processor) pair; shared, so a test that changes it copies."""
    return functools.cache(tiny_models.build)


@pytest.fixture(scope="session")
def family_folder(family_pair, tmp_path_factory):
    """Family -> a folder with the same, as transformers saves models."""

    @functools.cache
    def saved(family):
        path = tmp_path_factory.mktemp(family)
        for part in family_pair(family):
            part.save_pretrained(path)
        return path

    return saved


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(1234)
