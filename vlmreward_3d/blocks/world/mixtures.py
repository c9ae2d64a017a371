"""Blends of two scenes, like intermediate states of score distillation, with graded answers.

A denoiser that does not distinguish several pictures pulls towards all of them, so that the
optimized object is for a long time a mixture: a sphere that is pink on one side, a cube in the haze
of another one. Here two scenes that differ in one thing are blended, and the share of a scene in
the blend is the probability of "Yes" to a statement that is true of this scene alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward_3d.blocks.world.captions import CAPTION_QUESTIONS, GEOMETRY_QUESTIONS, Question
from vlmreward_3d.blocks.world.descriptions import (
    altered,
    article,
    caption,
    exchange_colors,
    exchange_order,
    name,
    other,
    same_meaning,
    with_thing,
)
from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    COMPOUNDS,
    Scene,
    arrange,
    flawed_fronts,
    pick,
)

_FRONT = 0.6
"""Share of the counterparts of single compounds that differ in the front."""
_TAKEN = 0.5
"""Share of the counterparts of pairs in which a thing has the color or shape of the other one."""
_NEARLY = 0.35
"""Share of the blends with borders in which one of the scenes is nearly whole."""
_BORDERS = 0.7
"""Share of the blends with borders that are not drawn as those without."""
_WRONG, _RIGHT = 0.6, 0.9
"""Shares up to which a scene is not there, and from which on it is."""
_CLEAR = 0.15
"""Least difference of a view that counts, as a share of the largest difference over the views."""


def counterpart(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs from a flawless one in one thing.

    The difference is another color or shape of one object; in pairs also exchanged colors or an
    exchanged order, and in half of the pairs one thing takes the color or the shape of the other
    one, like the errors of a denoiser that confuses attributes; for a single compound also several
    fronts or none. All else stays in its place, as far as the change allows.
    """
    which = int(rng.integers(len(scene.things)))
    if not scene.relation and scene.things[0].shape in COMPOUNDS and rng.random() < _FRONT:
        flaw = pick(("faces", "no front"), rng)
        fronts = flawed_fronts(scene.things[0].shape, flaw, rng)
        return replace(scene, things=(replace(scene.things[0], fronts=fronts),), flaw=flaw)
    thing = scene.things[which]
    options = [
        with_thing(scene, which, replace(thing, color=other(COLORS, thing.color, rng))),
        with_thing(scene, which, altered(thing, rng)),
    ]
    if scene.relation:
        options += [exchange_colors(scene), exchange_order(scene)]
        taken = _taken_over(scene, which)
        if taken and rng.random() < _TAKEN:
            options = taken
    options = [option for option in options if not same_meaning(option, scene)]
    changed = pick(options, rng)
    placed = arrange(list(changed.things), changed.relation, np.random.default_rng(scene.seed))
    return replace(changed, things=placed)


def _taken_over(scene: Scene, which: int) -> list[Scene]:
    """A pair in which one thing has the color, or the shape, of the other, where they differ."""
    thing, source = scene.things[which], scene.things[1 - which]
    found = []
    if thing.color != source.color:
        found.append(with_thing(scene, which, replace(thing, color=source.color)))
    if thing.shape != source.shape:
        shaped = replace(thing, shape=source.shape, fronts=(0.0,))
        found.append(with_thing(scene, which, shaped))
    return found


def blend_weights(
    views: int, size: int, rng: np.random.Generator, *, borders: bool = False
) -> Tensor:
    """Random weights (V, S, S, 1) in [0, 1] of the second of two pictures of each view.

    In equal parts: the same in all pixels, as in a haze of both; 0 or 1 for each view; different
    from place to place and from side to side.

    Args:
        views: V.
        size: S, in pixels.
        rng: Source of everything random.
        borders: Draw most of them as parts with a border, sharp or soft, or as 0 or 1 for each
            view; and in a third of them one of the pictures is nearly whole.
    """
    level = rng.uniform(0, 1)
    if borders and rng.random() < _NEARLY:
        level = rng.uniform(0, 0.08) + float(rng.integers(2)) * 0.92
    parted = borders and rng.random() < _BORDERS
    way = int(rng.integers(1, 4)) if parted else int(rng.integers(3))
    if way == 0:
        return torch.full((views, size, size, 1), level)
    if way == 1:
        of_views = torch.from_numpy(rng.random(views) < level).float()
        return of_views[:, None, None, None].expand(-1, size, size, -1).clone()
    azimuth = rng.uniform(0, 2 * np.pi) + np.arange(views) * 2 * np.pi / views
    sides = torch.tensor(rng.uniform(0, 4) * np.cos(azimuth)).float()[:, None, None, None]
    coarse = torch.from_numpy(rng.uniform(-1, 1, (views, 1, 4, 4))).float() * rng.uniform(0, 3)
    places = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
    height = sides + places.permute(0, 2, 3, 1)
    if way == 3:
        border = torch.quantile(height, 1 - level)
        return ((height - border) * rng.uniform(2, 30)).sigmoid()
    return (height + 8 * (level - 0.5)).sigmoid()


def shares(one: Tensor, two: Tensor, weights: Tensor) -> tuple[float, float]:
    """Smallest share of each of two pictures (V, H, W, 4) in their blend, over the views.

    The share is that of the difference between the two pictures, in the views that show the
    difference clearly: an object with one wrong side is wrong, and a view in which it is hidden
    does not count.
    """
    apart = (one.float() - two.float()).abs().sum(-1, keepdim=True).flatten(1)
    total = apart.sum(1)
    clear = total > _CLEAR * total.max()
    if not clear.any():
        return 1.0, 1.0
    second = (apart * weights.flatten(1)).sum(1)[clear] / total[clear]
    return float(1 - second.max()), float(second.min())


def truth_of(share: float) -> float:
    """Probability of "Yes" to a scene of which a share is there: 0 up to 0.6, 1 from 0.9 on."""
    return float(np.clip((share - _WRONG) / (_RIGHT - _WRONG), 0, 1))


def mixture_questions(
    one: Scene,
    two: Scene,
    share: tuple[float, float],
    rng: np.random.Generator,
    *,
    geometry: bool = True,
) -> list[Question]:
    """Questions about a blend of two scenes: captions and things of either, a color of none.

    Args:
        one: The first scene.
        two: Its `counterpart`.
        share: Visible part of each, in [0, 1]; see `shares`.
        rng: Source of choices.
        geometry: Ask about fronts, where they are what the scenes differ in. Their answers are
            graded by the share.
    """
    if two.flaw is not None:
        form = pick(CAPTION_QUESTIONS, rng)
        return _about_fronts(one, two.flaw, share[0], form, rng, geometry)
    truths = [truth_of(part) for part in share]
    better = int(truths[1] > truths[0])  # asked about twice, as true answers are rarer
    out = []
    for which, named in ((0, ""), (1, ""), (better, NAMED_QUESTIONS["yes-no"])):
        form = named or pick(CAPTION_QUESTIONS, rng)
        text = form.format(prompt=caption((one, two)[which], rng))
        out.append(_graded(text, truths[which], "caption"))
    names = [{name(thing) for thing in scene.things} for scene in (one, two)]
    for said in sorted(names[0] | names[1]):
        held = [truth for truth, mine in zip(truths, names) if said in mine]
        out.append(_graded(f"Is there {said}?", 1.0 if len(held) == 2 else held[0], "binding"))
    present = {thing.color for scene in (one, two) for thing in scene.things}
    absent = [color for color in COLORS if color not in present]
    return [*out, _graded(f"Is there something {pick(absent, rng)}?", 0.0, "color")]


def _graded(text: str, truth: float, kind: str) -> Question:
    return Question(text, truth > 0.5, f"mixture: {kind}", truth)


def _about_fronts(
    scene: Scene, flaw: str, whole: float, form: str, rng: np.random.Generator, geometry: bool
) -> list[Question]:
    """Questions about a compound that is whole by a share: its name, its fronts, its color."""
    (thing,) = scene.things
    named = whole if flaw == "no front" else 1.0
    out = [
        _graded(form.format(prompt=caption(scene, rng)), named, "front"),
        _graded(f"Is there {article(thing.shape, 0)}?", named, "front"),
        _graded(f"Is there something {thing.color}?", 1.0, "color"),
        _graded(f"Is there something {other(COLORS, thing.color, rng)}?", 0.0, "color"),
    ]
    if geometry and flaw == "faces":
        sound, several = (pick(GEOMETRY_QUESTIONS[topic], rng) for topic in ("sound", "faces"))
        out += [_graded(sound, whole, "front"), _graded(several, 1 - whole, "front")]
    return out
