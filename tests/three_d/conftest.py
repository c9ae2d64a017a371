import functools
import sys
from pathlib import Path

import pytest

from vlmreward_3d import export

# the core's tests know how to make a small random vision-language model
sys.path.append(str(Path(__file__).parents[1] / "core"))


@pytest.fixture
def quick_export(monkeypatch):
    """`export_all` at a size that takes a moment."""
    for name, smaller in {
        "save_views": {"size": 16},
        "save_turntable": {"size": 16},
        "save_mesh": {"resolution": 24},
    }.items():
        monkeypatch.setattr(export, name, functools.partial(getattr(export, name), **smaller))
