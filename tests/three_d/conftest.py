import functools

import pytest

from vlmreward_3d import export


@pytest.fixture
def quick_export(monkeypatch):
    """`export_all` at a size that takes a moment."""
    for name, smaller in {
        "save_views": {"size": 16},
        "save_turntable": {"size": 16},
        "save_mesh": {"resolution": 24},
    }.items():
        monkeypatch.setattr(export, name, functools.partial(getattr(export, name), **smaller))
