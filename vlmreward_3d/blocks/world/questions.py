"""Batches of views with several questions each, for training and for judging the built-in VLM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlmreward_3d.blocks.world.captions import (
    GEOMETRY_QUESTIONS,
    LONG_PROMPTS,
    PRESENCE_WORDS,
    RICH_WORDS,
    Question,
    attribute_question,
    caption_question,
    detail_question,
    geometry_question,
    relation_question,
)
from vlmreward_3d.blocks.world.dataset import RING, BlocksData
from vlmreward_3d.blocks.world.descriptions import as_if_whole
from vlmreward_3d.blocks.world.ground_truth import Facts, facts_of, roles_of
from vlmreward_3d.blocks.world.mixtures import blend_weights, mixture_questions, shares
from vlmreward_3d.blocks.world.raycast import CHANNELS
from vlmreward_3d.blocks.world.scenes import Scene

_FRONT, _FLOATER, _BROKEN = (CHANNELS.index(name) for name in ("front", "floater", "broken"))
_WORD = {w: i for i, w in enumerate((*PRESENCE_WORDS, *RICH_WORDS))}
_VISIBLE = 0.25
"""Cells that a floater or a hole must cover, all views together, to count as seen."""


_OF_ANY_OBJECT = ("color", *(f"geometry: {topic}" for topic in GEOMETRY_QUESTIONS))
"""Kinds of questions whose answers do not depend on the name of an object."""


def _denied(question: Question) -> Question:
    """A question about an object by its name, which is false for the scene."""
    return replace(question, yes=False, kind="no front")


@dataclass(frozen=True)
class Batch:
    """Views of N scenes and the questions about each.

    Attributes:
        rgba: (N, V, 64, 64, 4) uint8.
        fade: (N,) remaining opacity of the objects; below 0.15 they count as invisible.
        questions: a list of questions per scene.
        words: (N, V, 16, W) float: 1 where the word is true of something in the cell, 0 where not,
            NaN where it is unclear.
        facts: facts of each scene as a whole; None if they are unclear.
    """

    rgba: Tensor
    fade: Tensor
    questions: list[list[Question]]
    words: Tensor
    facts: list[Facts | None]


def word_labels(scene: Scene, coverage: Tensor) -> Tensor:
    """Presence words that are true in each cell, (V, 16, W), from coverage (V, 4, 4, 6) uint8."""
    cover = coverage.flatten(1, 2).float() / 255
    seen = torch.zeros(*cover.shape[:2], len(_WORD))
    crossing = "intersecting" if scene.flaw == "intersection" else ""
    for i, (thing, roles) in enumerate(zip(scene.things, roles_of(scene))):
        i = i if scene.links else 0  # equal things are marked as one
        said = {*thing.words, *roles, thing.pattern, thing.extent, crossing}
        for word in said & _WORD.keys():
            seen[..., _WORD[word]] = torch.maximum(seen[..., _WORD[word]], cover[..., i])
    seen[..., _WORD["faces"]] = 4 * cover[..., _FRONT]
    seen[..., _WORD["floating"]] = 4 * cover[..., _FLOATER]
    seen[..., _WORD["broken"]] = 3 * cover[..., _BROKEN]
    labels = (seen >= 0.2).float()
    labels[(seen > 0.04) & (seen < 0.2)] = torch.nan
    if scene.flaw == "no front":  # from behind, what has a front looks the same
        labels[..., [_WORD[thing.shape] for thing in scene.things]] = torch.nan
    return labels


def _labels_of_blend(
    scenes: tuple[Scene, Scene], coverage: tuple[Tensor, Tensor], weights: Tensor
) -> Tensor:
    """The presence words that are true in each cell of a blend: those of either scene's part.

    Args:
        scenes: The two scenes.
        coverage: (V, 4, 4, 6) uint8 of each.
        weights: (V, S, S, 1) of the second picture.

    Returns:
        (V, 16, W); NaN where a word is not clear.
    """
    views, side = coverage[0].shape[:2]
    cell = weights.shape[1] // side
    second = weights.reshape(views, side, cell, side, cell).mean((2, 4))[..., None]
    parts = (coverage[0].float() * (1 - second), coverage[1].float() * second)
    labels = torch.stack([word_labels(scene, part) for scene, part in zip(scenes, parts)])
    present = labels.nan_to_num(0).amax(0)
    either = torch.where(labels.isnan().any(0) & (present < 1), torch.nan, present)
    first, other = (word_labels(scene, cover) for scene, cover in zip(scenes, coverage))
    return torch.where(first == other, first, either)


def flaw_seen(scene: Scene, coverage: Tensor) -> bool:
    """False if the scene's floaters or holes are hidden in all views; True otherwise."""
    channel = {"floaters": _FLOATER, "holes": _BROKEN}.get(scene.flaw or "")
    return channel is None or float(coverage[..., channel].float().sum()) / 255 > _VISIBLE


class QuestionSampler:
    """Draws batches from a rendered set.

    Args:
        data: the scenes.
        seed: seed of the batches; each depends on the seed and on its number alone.
        mixtures: share of blends of a scene and its counterpart among flawless scenes, where all
            kinds of questions are asked.

    Attributes:
        rich: True if there are compositions among the scenes; their words then occur in questions
            about all scenes.
    """

    def __init__(self, data: BlocksData, seed: int, *, mixtures: float = 0.0) -> None:
        self.data = data
        self.mixtures = mixtures
        self.seed = seed
        self.clean = [i for i, s in enumerate(data.scenes) if s.flaw is None]
        self.flawed = [i for i, s in enumerate(data.scenes) if s.flaw is not None]
        self.rich = data.composed
        self.two_faced = [i for i, s in enumerate(data.scenes) if s.flaw == "faces"]

    def draw(
        self, number: int, scenes: int, *, stage: str = "all", long: bool = False, views: int = 4
    ) -> Batch:
        """Batch ``number``.

        Args:
            number: number of the batch, which determines its content.
            scenes: number N of scenes.
            stage: stage of the training: ``"words"`` has no questions, ``"simple"`` questions about
                colors and shapes, ``"attributes"`` also about their combinations and captions of
                single things, all of flawless scenes; ``"all"`` has all kinds, ``"flaws"`` too,
                with more second fronts and mixed views.
            long: True for one of the paper's prompts and a few short questions, False for short
                questions only.
            views: number of views, 1, 2, 4 or 8; below 4 there are no questions about geometry.
        """
        rng = np.random.default_rng([self.seed, number])
        rgba: list[Tensor] = []
        words: list[Tensor] = []
        fade: list[float] = []
        questions: list[list[Question]] = []
        facts: list[Facts | None] = []
        everything = stage in ("all", "flaws")
        while len(rgba) < scenes:
            flawed = (everything or stage == "words") and views >= 4 and rng.random() < 0.4
            i = int(rng.choice(self.flawed if flawed else self.clean))
            if flawed and stage == "flaws" and self.two_faced and rng.random() < 0.4:
                i = int(rng.choice(self.two_faced))
            scene = self.data.scenes[i]
            first = 0 if views == 8 else int(rng.integers(2)) * RING
            shown = first + np.sort(rng.permutation(8 if views == 8 else RING)[:views])
            if views >= 4:
                shown = np.roll(shown, int(rng.integers(views)))
            mirrored = rng.random() < 0.5
            shown = shown[::-1].copy() if mirrored else shown
            pixels, cover = self._views(i, shown, mirrored)
            if flawed and not flaw_seen(scene, cover):
                continue
            partner = self.data.counterpart(i) if self.mixtures and not flawed else None
            if partner is not None and everything and rng.random() < self.mixtures:
                mixed_pixels, mixed_labels, asked = self._mixture(i, partner, shown, mirrored, rng)
                rgba.append(mixed_pixels)
                words.append(mixed_labels)
                questions.append(asked)
                fade.append(1.0)
                facts.append(None)
                continue
            labels = word_labels(scene, cover)
            flaw = scene.flaw
            opacity = 1.0
            mixed = 0.35 if stage == "flaws" else 0.15
            if not flawed and views >= 4 and everything and rng.random() < mixed:
                j = int(rng.choice(self.clean))
                other = self.data.scenes[j]
                if {t.words for t in other.things} == {t.words for t in scene.things}:
                    continue
                swap = rng.permutation(views)[: int(rng.integers(1, views // 2 + 1))]
                pixels, labels = pixels.clone(), labels.clone()
                pixels[swap], cover = self._views(j, shown[swap], mirrored)
                labels[swap] = word_labels(other, cover)
                flaw = "mixed"
            elif everything and rng.random() < 0.05:
                opacity, flaw = float(rng.uniform(0, 0.12)), "nothing"
                labels = torch.zeros_like(labels)
            rgba.append(pixels)
            fade.append(opacity)
            words.append(labels)
            facts.append(facts_of(scene, flaw))
            questions.append(self._ask(scene, flaw, rng, stage, long, views))
        return Batch(torch.stack(rgba), torch.tensor(fade), questions, torch.stack(words), facts)

    def _views(self, scene: int, shown: np.ndarray, mirrored: bool) -> tuple[Tensor, Tensor]:
        """Pixels and coverage of views; mirrored ones, in reverse order, show a mirrored scene."""
        pixels, cover = self.data.rgba[scene, shown], self.data.coverage[scene, shown]
        return (pixels.flip(2), cover.flip(2)) if mirrored else (pixels, cover)

    def _mixture(
        self, one: int, two: int, shown: np.ndarray, mirrored: bool, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, list[Question]]:
        """Pixels of a blend of two scenes, the words that are true in its cells, and questions."""
        a, b = self.data.scenes[one], self.data.scenes[two]
        first, cover = self._views(one, shown, mirrored)
        second, cover_two = self._views(two, shown, mirrored)
        views, size = first.shape[:2]
        weights = blend_weights(views, size, rng, borders=True)
        blend = torch.lerp(first.float(), second.float(), weights).round().to(torch.uint8)
        labels = _labels_of_blend((a, b), (cover, cover_two), weights)
        share = shares(first, second, weights)
        asked = mixture_questions(a, b, share, rng, geometry=len(shown) >= RING)
        return blend, labels, asked

    def _ask(
        self,
        scene: Scene,
        flaw: str | None,
        rng: np.random.Generator,
        stage: str,
        long: bool,
        views: int,
    ) -> list[Question]:
        if stage == "words":
            return []
        if stage == "simple":
            return [attribute_question(scene, rng, simple=True) for _ in range(6)]
        if flaw == "no front":  # asked about as if it had one
            scene = as_if_whole(scene)
        content = flaw not in ("mixed", "nothing")
        everything = stage in ("all", "flaws")
        out: list[Question] = []
        if long:
            form = str(rng.choice(LONG_PROMPTS, p=(0.6, 0.2, 0.2)))
            if flaw != "mixed" or form != "paper/A":
                sound = flaw is None
                out.append(caption_question(scene, rng, form=form, sound=sound, rich=self.rich))
        if content or flaw == "nothing":
            for _ in range(1 if long else 3):
                out.append(attribute_question(scene, rng))
            if stage == "attributes" and scene.relation:
                return out + [attribute_question(scene, rng) for _ in range(2)]
            for _ in range(1 if long else 2):
                out.append(caption_question(scene, rng, rich=self.rich))
            if scene.links and everything:
                out.append(relation_question(scene, rng))
            if self.rich and everything:
                out += [detail_question(scene, rng) for _ in range(1 if long else 2)]
        if everything and views >= 4 and flaw != "nothing":
            for _ in range(1 if long else (4 if stage == "flaws" else 2)):
                out.append(geometry_question(flaw, rng))
        if flaw == "no front":
            out = [q if q.kind in _OF_ANY_OBJECT else _denied(q) for q in out]
        if flaw == "nothing":
            out = [Question(q.text, yes=False, kind="nothing there") for q in out]
        return out or [geometry_question(flaw, rng)]
