"""Names that the folders export."""

import subprocess
import sys
from importlib import import_module

import pytest

FOLDERS = ["", ".images", ".rewards", ".wrappers", ".explain", ".doctor", ".integrations"]
folders = pytest.mark.parametrize("folder", FOLDERS)


@folders
def test_every_name_is_there(folder):
    package = import_module(f"vlmreward{folder}")
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=r"vlmreward.* has no attribute 'Missing'"):
        package.Missing  # noqa: B018


def test_names_are_imported_when_they_are_used():
    """Without torch the folders can be imported, and their names cannot."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import vlmreward.rewards, vlmreward.images\n"
        "try: vlmreward.rewards.YesNoReward\n"
        "except ImportError as error: assert error.name == 'torch', error\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
