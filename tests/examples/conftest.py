import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def pipeline():
    """A Stable Diffusion pipeline of random weights that makes pictures of 32 x 32."""
    import tiny_pipeline  # once the hub is switched off

    return tiny_pipeline.build()


@pytest.fixture(scope="session")
def pipeline_folder(pipeline, tmp_path_factory):
    """The same as diffusers saves it."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def refused(capsys):
    """Runs an example on bad input and returns the one line that it says."""

    def call(main, *words):
        assert main([str(word) for word in words]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
        return line

    return call
