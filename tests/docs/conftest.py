import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fences import ROOT
from rendered import Site, read

from vlmreward.models.families import members

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for folder in ("core", "examples", "three_d", "evaluation"):  # small models, and scripts
    sys.path.append(str(ROOT / "tests" / folder))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    """The site that mkdocs makes, without a warning."""
    folder = tmp_path_factory.mktemp("site")
    # not --quiet, which drops the warnings before --strict counts them
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read(folder)


def _vlm(family: str, folder: Path) -> None:
    import tiny_models

    for part in tiny_models.build(family):
        part.save_pretrained(folder)


def _diffusion(folder: Path) -> None:
    import tiny_pipeline

    tiny_pipeline.build().save_pretrained(folder)


STAND_INS = {
    **{member.checkpoint: functools.partial(_vlm, key) for key, member in members().items()},
    "Qwen/Qwen2.5-VL-3B-Instruct": functools.partial(_vlm, "qwen2_5_vl"),
    "stabilityai/sd-turbo": _diffusion,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _diffusion,
}
"""Models of the hub -> what saves a small random one of the same architecture."""


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Path:
    """A cache of the hub in which these models lie, as a download leaves them."""
    cache = tmp_path_factory.mktemp("hub")
    for name, save in STAND_INS.items():
        model = cache / f"models--{name.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text("0" * 40)
        save(model / "snapshots" / ("0" * 40))
        # transformers asked for it in vain
        absent = model / ".no_exist" / ("0" * 40) / "tokenizer" / "config.json"
        absent.parent.mkdir(parents=True)
        absent.touch()
    return cache


@pytest.fixture
def offline(hub, monkeypatch, tmp_path) -> Path:
    """The hub is that cache and nothing else, and the working directory an empty one."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
