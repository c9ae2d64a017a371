"""Folders of renders in the layout of GPTEval3D (github.com/3DTopia/GPTEval3D).

``prompts.json`` is a list of texts; the index of a text is the prompt's number. The
renders of a method are ``methods/METHOD/NUMBER/SEED/rgb_I.png`` and ``normal_I.png``, I = 0, 1,
...: frames of a turntable. Only seed 0 is read, as in GPTEval3D. Beside the frames there may be
``rewards.json``, which is ours: the names of the VLMs that steered the asset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROMPTS = "prompts.json"
METHODS = "methods"
SEED = "0"
REWARDS = "rewards.json"


@dataclass(frozen=True, order=True)
class Asset:
    """Renders that a method has made for a prompt.

    Attributes:
        method: name of the method.
        prompt_id: the prompt's number.
        folder: Folder of the frames.
    """

    method: str
    prompt_id: int
    folder: Path


@dataclass(frozen=True)
class Tournament:
    """Prompts, methods, and an asset for most pairs of them.

    Attributes:
        prompts: all texts; a prompt's number is its index.
        methods: names in alphabetical order.
        assets: assets by method and number of the prompt.
        rewards: names of the VLMs that steered some asset of a method, by method.
    """

    prompts: tuple[str, ...]
    methods: tuple[str, ...]
    assets: dict[tuple[str, int], Asset]
    rewards: dict[str, frozenset[str]]

    def steered_by(self, judge: str) -> list[str]:
        """The methods that a VLM of this name has steered."""
        return [name for name in self.methods if judge in self.rewards[name]]

    def common_prompts(self, first: str, second: str) -> list[int]:
        """Numbers of the prompts of which both methods have an asset, ascending."""
        numbers = range(len(self.prompts))
        return [i for i in numbers if {(first, i), (second, i)} <= self.assets.keys()]


def frame(folder: Path, kind: str, number: int) -> Path:
    """The file of a frame; kind is "rgb" or "normal"."""
    return folder / f"{kind}_{number}.png"


def asset_folder(root: Path, method: str, prompt_id: int) -> Path:
    """Folder of an asset's frames."""
    return root / METHODS / method / str(prompt_id) / SEED


def read_prompts(root: Path) -> tuple[str, ...]:
    """The texts in ``prompts.json``.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a list of texts.
    """
    file = root / PROMPTS
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise OSError(
            f"cannot read {file} ({error.strerror}); expected GPTEval3D's layout: {PROMPTS} beside "
            f"a folder {METHODS}"
        ) from None
    except (ValueError, RecursionError):
        raise ValueError(f"{file} does not read as JSON; expected a list of texts") from None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{file} holds no list; expected a list of texts")
    for i, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{file} has {text!r} at place {i}; expected a text")
    return tuple(found)


def read_tournament(
    root: Path, *, methods: Sequence[str] | None = None, limit: int | None = None
) -> Tournament:
    """Look at a folder of renders; no picture is opened.

    Args:
        root: the folder.
        methods: names of those that take part; all by default.
        limit: number of prompts that are looked at, from the first on; all by default.

    Raises:
        OSError: a part of the layout is missing.
        ValueError: fewer than two methods, one that is not there, or one without a picture; a
            ``rewards.json`` is not a list of names.
    """
    prompts = read_prompts(root)
    folder = root / METHODS
    if not folder.is_dir():
        raise OSError(f"there is no folder {folder}; expected a folder for each method in it")
    there = sorted(x.name for x in folder.iterdir() if x.is_dir() and not x.name.startswith("."))
    wanted = sorted({*(methods or there)})
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ValueError(
            f"there is no method {missing[0]!r} in {folder}; expected some of {', '.join(there)}"
        )
    if len(wanted) < 2:
        raise ValueError(
            f"{folder} has {len(wanted)} methods to compare; expected two or more folders"
        )
    numbers = range(len(prompts))[:limit]
    found = [Asset(method, i, asset_folder(root, method, i)) for method in wanted for i in numbers]
    assets = {(a.method, a.prompt_id): a for a in found if frame(a.folder, "rgb", 0).is_file()}
    for method in wanted:
        if not any(name == method for name, _ in assets):
            raise ValueError(
                f"the method {method!r} has no picture; expected files such as "
                f"{frame(asset_folder(root, method, 0), 'rgb', 0)}"
            )
    rewards = dict.fromkeys(wanted, frozenset[str]())
    for asset in assets.values():
        rewards[asset.method] |= _rewards(asset)
    return Tournament(prompts, tuple(wanted), assets, rewards)


def _rewards(asset: Asset) -> frozenset[str]:
    """The VLMs that steered an asset, as far as they are known."""
    file = asset.folder / REWARDS
    if not file.exists():
        return frozenset()
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{file} holds no list of names; expected hub ids or folders of VLMs as a JSON list"
        )
    return frozenset(names)
