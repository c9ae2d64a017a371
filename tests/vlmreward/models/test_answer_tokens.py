import pytest
import torch

from vlmreward.models.answer_tokens import (
    AnswerTokenizer,
    SpellingVariants,
    log_odds,
    resolve_answers,
)
from vlmreward.models.families import tiny

TOKENIZER = tiny.tokenizer()
CONTEXT = "<|im_start|>assistant\n"


def resolve(answers, context=CONTEXT):
    lookup = AnswerTokenizer(
        tokenize=lambda text: TOKENIZER(text, add_special_tokens=False)["input_ids"],
        decode=lambda *ids: TOKENIZER.decode(ids),
        context=context,
        vocabulary=len(TOKENIZER),
        markup=TOKENIZER.all_special_tokens,
    )
    return resolve_answers(answers, lookup)


def ids(*texts):
    return tuple(TOKENIZER(text)["input_ids"][0] for text in texts)


def test_each_spelling_is_its_own_token():
    yes = resolve(("Yes", "No"))
    assert yes.positive == ids("Yes")
    assert yes.negative == ids("No")
    assert yes.positive_tokens == ("Yes",)
    assert yes.negative_tokens == ("No",)
    assert resolve(("yes", "no")).positive == ids("yes") != yes.positive
    assert resolve((" Yes", " No")).positive == ids(" Yes") != yes.positive


def test_variants_and_ids():
    found = resolve((["Yes", "yes", "Yes"], [*ids("No"), " No"]))
    assert found.positive == ids("Yes", "yes")
    assert found.negative == ids("No", " No")
    assert found.ids == ids("Yes", "yes", "No", " No")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (("", "No"), "'' is empty; expected a word"),
        ((SpellingVariants("Absolutely"), "No"), "no spelling of 'Absolutely' is a single token"),
        (("Absolutely", "Absolutely not"), "'Absolutely not' begins with the answer 'Absolutely'"),
        (("Yes", "Yes"), "share the token 'Yes'.*different"),
        ((["Yes", "No"], ["no", "No"]), "share the token 'No'"),
        ("Yes", "expected a pair"),
        (("Yes", "No", "Maybe"), "expected a pair"),
        (([], "No"), "no variants"),
        ((10**6, 3), "1000000 is outside the vocabulary; expected 0 to"),
        ((-1, 3), "-1 is outside"),
    ],
)
def test_bad_answers(answers, message):
    with pytest.raises(ValueError, match=message):
        resolve(answers)


@pytest.mark.parametrize("answers", [("Yes", 5.0), (None, "No"), ("Yes", ["No", None])])
def test_answers_of_other_types(answers):
    with pytest.raises(TypeError, match="expected a text, a token id, SpellingVariants of a word"):
        resolve(answers)


def test_an_answer_that_merges_with_what_precedes_it_is_refused():
    with pytest.raises(ValueError, match="merges with the end of the prompt"):
        resolve(("Yes", "No"), context="Answer: ")


def test_a_word_follows_a_colon_with_a_space():
    found = resolve(("Yes", "No"), context="Assistant:")
    assert found.positive_tokens == (" Yes",)
    assert resolve((" Yes", " No"), context="Assistant:") == found
    assert resolve(("Yes", "No"), context="Assistant:<|im_end|>").positive_tokens == ("Yes",)
    # where the tokenizer has no such token, the one that it has
    assert resolve(("YES", "yes"), context="Assistant:").negative_tokens == (" yes",)


def test_several_tokens():
    found = resolve(("Absolutely", "No"))
    assert found.positive == (tuple(TOKENIZER("Absolutely")["input_ids"]),)
    assert found.negative == ids("No")
    assert found.positive_tokens == ("Absolutely",)
    assert found.ids is None
    assert found.sequences == (found.positive[0], ids("No"))


def test_variants_of_a_word():
    found = resolve((SpellingVariants("yes"), [SpellingVariants("No"), "Never"]))
    assert set(found.positive_tokens) == {"yes", " yes", "Yes", " Yes"}
    assert {"No", " No", "no", " no"} <= set(found.negative_tokens)
    assert found.negative_tokens[-1] == "Never"
    assert all(isinstance(i, int) for i in found.positive)


def test_log_odds():
    logits = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(log_odds(logits[:, :2], 1), torch.tensor([3.0]).double())
    p = logits.softmax(-1)[0]
    torch.testing.assert_close(log_odds(logits, 2)[0], ((p[0] + p[1]) / p[2]).log())
