from vlmreward_3d.blocks.world.ground_truth import facts_of, iter_labels
from vlmreward_3d.blocks.world.scenes import Scene, SceneObject

CUBE, BALL = SceneObject("cube", "red", 0.3), SceneObject("sphere", "blue", 0.3)
STACK = facts_of(Scene((CUBE, BALL), "on top of"), None)


def said(text, facts):
    """{(word, kind): truth} of a text of presence words; "|" ends a question."""
    words = [None if w == "|" else w.strip("-") for w in text.split()]
    return {(words[i], kind): true for i, kind, true in iter_labels(words, facts)}


def test_words_pairs_and_roles_of_a_stack():
    right = said("red cube top blue sphere", STACK)
    assert right.pop(("sphere", 2))
    assert all(right.values())
    assert len(right) == 7
    swapped = said("blue sphere top red cube", STACK)
    assert not swapped.pop(("cube", 2))
    assert all(swapped.values())
    assert said("blue sphere below red cube", STACK)[("cube", 2)]
    colors = said("blue cube top red sphere", STACK)
    assert not any(true for (_, kind), true in colors.items() if kind)
    assert colors[("cube", 0)]


def test_a_relation_ends_with_its_question_and_other_tokens_part_words():
    known = said("red cube top - | blue sphere next", STACK)
    assert ("sphere", 2) not in known
    assert not known[("next", 0)]
    assert ("sphere", 1) not in said("blue - sphere", STACK)


def test_flaws_empty_and_mixed_views():
    scene = Scene((CUBE, BALL), "next to", flaw="holes")
    facts = facts_of(scene, "holes")
    assert said("broken faces", facts) == {("broken", 0): True, ("faces", 0): False}
    assert said("blue sphere next red cube", facts)[("cube", 2)]
    assert not any(said("red cube next blue sphere", facts_of(scene, "nothing")).values())
    assert facts_of(scene, "mixed") is None
    mug = Scene((SceneObject("mug", "red", 0.3, fronts=()),), flaw="no front")
    assert said("red mug", facts_of(mug, "no front")) == {
        ("red", 0): True,
        ("mug", 0): False,
        ("mug", 1): False,
    }
