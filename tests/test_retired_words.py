"""Names of the public interface are the glossary's: retired words do not come back."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import vlmreward
import vlmreward_3d

RETIRED = {
    # classes and functions of the core
    *("Backbone", "PromptedReward", "Checklist", "ScaleReward", "PromptTemplate", "Paraphrased"),
    *("PromptEnsemble", "Variants", "Lookup", "Row", "Layout", "Continued", "Family", "Watched"),
    *("LowPass", "Augmented", "FoolingWarning", "Finding", "Subject", "COMBINATIONS", "SLACK"),
    *("PIXELS", "NAMED_PROMPTS", "low_pass", "take_apart", "sum_one_by_one", "lay_out"),
    *("check_distinct", "single", "examine", "findings", "working", "each", "combined", "together"),
    *("logits_together", "layout_together", "assemble", "assemble_together", "before_answer"),
    *("recall", "repeated", "continued", "blank", "judged", "normalised"),
    # and of the 3D package
    *("Verdict", "Diverged", "Stopped", "NoSurface", "RunFolder", "Board", "Watchdog"),
    *("Penalties", "Snapshot", "PyramidField", "HashField", "SplatField", "BakedVolume"),
    *("Thing", "Examiner", "noise_of", "splat_views", "render_splats", "save_splats"),
    *("with_splats", "render_kept", "judge", "look", "go_back", "branch_off", "begin", "calm"),
    *("truths", "compose", "place", "attend_to_alike", "sample_rings", "load_teachers"),
    # arguments and fields
    *("combine", "reference", "opposites", "heat", "grain", "fill", "filled", "grids", "seen"),
    *("rings", "n_rings", "rings_later", "views_per_ring", "resolution_later", "splat_count"),
    *("vlm_every", "vlm_reuse", "vlm_until", "vlm_limit", "vlm_balance", "vlm_pixels"),
    *("vlm_prompt", "vlm_views", "variation_weight", "haze", "occupied", "p_yes", "hard"),
    *("with_vlm", "again", "live", "matrices", "masked", "causal", "positioned", "answer_type"),
}
"""Names that once stood for something that has another name now."""
RETIRED_AT = {
    ("YesNoReward", "pixels"),
    ("YesNoReward", "prompt"),
    ("FrozenVLM", "pixels"),
    ("from_hf", "pixels"),
    ("RatingReward", "scale"),
    ("ExpectationOverTransformations", "samples"),
    ("ExpectationOverTransformations", "chunk"),
    ("ExpectationOverTransformations", "shared"),
    ("MicroBatched", "size"),
    ("MicroBatched", "sizes"),
    ("render_deferred", "chunk"),
    ("CameraConfig", "scale"),
}
"""Names that have another meaning elsewhere, and the owners that have lost them."""
BRITISH = re.compile(
    r"colour|centre|neighbour|behaviour|grey|(nal|im|ular|er|tis|ken)is(e|ed|er|ation)(_|$)"
)
FLAGS = {"--view", "--mesh", "--plan", "--no-watchdog", "--prompt-template", "--text", "--pixels"}
"""Options of commands that have other names now."""


def modules(package):
    """A package and all of its modules but those whose names begin with an underscore."""
    yield package
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "._" not in found.name:
            yield importlib.import_module(found.name)


def parameters(function) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def names(module):
    """Names of a module's public interface, each behind where it stands."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name, None)  # None: a module that nothing has imported yet
        yield module.__name__, name
        if inspect.isclass(thing) and thing.__module__.startswith(module.__name__):
            here = f"{module.__name__}.{name}"
            yield from ((here, p) for p in parameters(thing.__init__))
            if dataclasses.is_dataclass(thing):
                yield from ((here, f.name) for f in dataclasses.fields(thing))
            for member, value in vars(thing).items():
                if not member.startswith("_"):
                    yield here, member
                    yield from ((f"{here}.{member}", p) for p in parameters(value))
        elif inspect.isfunction(thing):
            yield from ((f"{module.__name__}.{name}", p) for p in parameters(thing))


@pytest.mark.parametrize("package", [vlmreward, vlmreward_3d], ids=lambda p: p.__name__)
def test_retired_words_are_absent(package):
    public = [entry for module in modules(package) for entry in names(module)]
    assert len(public) > 300
    retired = {(where, name) for where, name in public if name in RETIRED or BRITISH.search(name)}
    retired |= {(w, n) for w, n in public if (w.rpartition(".")[2], n) in RETIRED_AT}
    assert sorted(retired) == []


def test_a_retired_word_is_noticed():
    class Planted:
        def method(self, *, combine): ...

    Planted.__module__ = vlmreward.__name__
    module = type(vlmreward)("vlmreward")
    module.__all__ = ["Planted"]
    module.Planted = Planted
    assert ("vlmreward.Planted.method", "combine") in set(names(module))


def test_retired_options_are_absent():
    root = Path(vlmreward.__file__).parents[1]
    files = [*root.glob("vlmreward*/**/*.py"), *root.glob("examples/**/*.py")]
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    options = {a.value for call in calls for a in call.args if isinstance(a, ast.Constant)}
    assert len(options) > 60
    assert options & FLAGS == set()
