"""Checks of the tokens that are read as the answer, and of their probability."""

from __future__ import annotations

import string
from collections.abc import Iterable

import torch
from torch import Tensor

from vlmreward.doctor.probe import Probe
from vlmreward.doctor.reference import prompt_of
from vlmreward.doctor.result import WARN, CheckResult, check, pass_or_fail

__all__ = ["answer_mass", "answer_tokens"]

_TAIL = 16  # tokens of the prompt's end that can matter to how the next one is written
_LOOKED_AT = 200  # likeliest tokens among which other spellings are looked for


def _plain(text: str) -> str:
    """A word without case, spaces and punctuation."""
    return text.strip(string.punctuation + string.whitespace + "▁").casefold()


def _spellings(subject: Probe, word: str) -> set[int]:
    """Tokens by which the model can begin to answer `word` where its prompt ends.

    The word itself in any case; behind a space too, where the prompt ends without one; and as the
    chat template writes a turn of the assistant.
    """
    tokenizer, backbone = subject.processor.tokenizer, subject.backbone
    tail = tokenizer.decode(
        subject.references[0].tokens[-_TAIL:], clean_up_tokenization_spaces=False
    )
    words = dict.fromkeys([word, word.lower(), word.capitalize(), word.upper()])
    texts = list(words)
    if not tail[-1:].isspace():
        texts += [f" {w}" for w in words]
    before = backbone.tokenize(tail)
    made = [backbone.tokenize(tail + text) for text in texts]
    found = {
        ids[len(before)] for ids in made if ids[: len(before)] == before and len(ids) > len(before)
    }
    for written in words:
        found |= _as_a_turn(subject, written)
    return {token for token in found if _plain(backbone.decode(token)) == _plain(word)}


def _as_a_turn(subject: Probe, word: str) -> set[int]:
    """The first token of the assistant's turn, as the chat template writes it."""
    if not getattr(subject.processor, "chat_template", None):
        return set()
    user = {"role": "user", "content": [{"type": "text", "text": "?"}]}
    turn = {"role": "assistant", "content": [{"type": "text", "text": word}]}
    try:
        whole = subject.processor.apply_chat_template([user, turn], tokenize=False)
    except Exception:  # templates may refuse what they were not made for
        return set()
    before = subject.backbone.tokenize(prompt_of(subject.vlm, subject.processor, "?", 0))
    tokens = subject.backbone.tokenize(whole)
    return set(tokens[len(before) : len(before) + 1]) if tokens[: len(before)] == before else set()


def _written(subject: Probe, tokens: Iterable[int]) -> str:
    return ", ".join(f"{subject.backbone.decode(t)!r} ({t})" for t in tokens)


@check("answer tokens")
def answer_tokens(subject: Probe) -> CheckResult:
    """The tokens say the right word, in a spelling that can follow the prompt."""
    tokens, wrong = subject.reward.tokens or (), []
    positive, negative = (
        tokens[: len(subject.reward.answers.positive)],
        tokens[len(subject.reward.answers.positive) :],
    )
    for word, taken in zip(subject.words, (positive, negative)):
        other = [t for t in taken if _plain(subject.backbone.decode(t)) != _plain(word)]
        if other:
            wrong.append(f"{_written(subject, other)} taken for {word!r}")
            continue
        spellings = _spellings(subject, word)
        if spellings and not spellings & set(taken):
            wrong.append(
                f"{_written(subject, taken)} taken for {word!r}, which is "
                f"{_written(subject, sorted(spellings))} after this prompt"
            )
    both = f"{_written(subject, positive)} against {_written(subject, negative)}"
    return pass_or_fail(
        not wrong,
        "; ".join(wrong) or both,
        f"{subject.words[0]!r} against {subject.words[1]!r}, as written after the prompt",
        "pass answers=('Yes', 'No') as texts, which are looked up behind the prompt; if other "
        "words are meant, tell the doctor (answers=, on the command line --answers)",
        positive=list(positive),
        negative=list(negative),
    )


@check("answer mass")
def answer_mass(subject: Probe) -> CheckResult:
    """Probability of the counted answers together; the reward ignores all other tokens."""
    logits = torch.stack([reference.logits for reference in subject.references])
    p = logits.double().softmax(-1).mean(0)
    taken = set(subject.reward.tokens or ())
    plain = {_plain(word) for word in subject.words}
    likeliest = p.topk(min(_LOOKED_AT, len(p))).indices.tolist()
    other = {t for t in likeliest if _plain(subject.backbone.decode(t)) in plain}
    for word in subject.words:
        other |= _spellings(subject, word)
    other -= taken
    on_taken, on_other = _mass(p, taken), _mass(p, other)
    elsewhere = max(0.0, 1 - on_taken - on_other)
    top = [(subject.backbone.decode(t), float(p[t])) for t in likeliest[:5]]
    if elsewhere > 0.5:
        said = ", ".join(f"{token!r} {share:.1%}" for token, share in top)
        advice = (
            f"the model would rather say {said}: ask for the answer more plainly, or take the "
            "words that it prefers, with answers="
        )
    else:
        wanted = [_likely(subject, p, taken | other, word) for word in subject.words]
        advice = f"other spellings are likelier than those taken: pass answers=({wanted[0]}, "
        advice += f"{wanted[1]})"
    return pass_or_fail(
        elsewhere <= 0.5 and on_other <= on_taken,
        f"{on_taken:.1%} on the answers, {on_other:.1%} on other spellings, "
        f"{elsewhere:.1%} elsewhere",
        "at most 50% elsewhere",
        advice,
        otherwise=WARN,
        on_answers=on_taken,
        other_spellings=on_other,
        elsewhere=elsewhere,
        top=top,
    )


def _likely(subject: Probe, p: Tensor, tokens: set[int], word: str) -> list[str]:
    """Spellings of a word, the likeliest first, down to a twentieth of its probability."""
    decode = subject.backbone.decode
    own = sorted((t for t in tokens if _plain(decode(t)) == _plain(word)), key=lambda t: -p[t])
    return [decode(t) for t in own if p[t] >= p[own[0]] / 20]


def _mass(p: Tensor, tokens: set[int]) -> float:
    return float(p[sorted(tokens)].sum()) if tokens else 0.0
