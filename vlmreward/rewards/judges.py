"""Published judges of images, each with its own question and formula."""

from __future__ import annotations

from typing import Any

from vlmreward.rewards.answer_probability import AnswerProbabilityReward
from vlmreward.rewards.base import ModelSource
from vlmreward.rewards.questions import QuestionTemplate
from vlmreward.rewards.yes_no import YesNoReward

__all__ = ["RERANKER_INSTRUCTION", "qwen3_vl_reranker", "vqascore"]

RERANKER_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
"""The default instruction of Qwen3-VL-Reranker."""
_RERANKER_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)


def qwen3_vl_reranker(
    model: ModelSource = "Qwen/Qwen3-VL-Reranker-2B",
    *,
    instruction: str = RERANKER_INSTRUCTION,
    **options: Any,
) -> YesNoReward:
    """Qwen3-VL-Reranker with the question that it was trained on: the prompt is the query.

    ``reward.probability(images, prompt="a red cube")`` is the model's score, P(yes) / (P(yes) +
    P(no)), the images being one document; the reward is its log-odds. The layout is that of the
    model's own script: system prompt, instruction and query, then the images. That script resizes
    images of fewer than 4,096 and of more than 1,843,200 pixels, where the processor of the
    checkpoint has limits of its own; between both they agree.

    Args:
        model: a reranker, its name, or another reward of it; see ``YesNoReward``.
        instruction: criterion by which a document meets a query, a sentence of the prompt.
        **options: the other arguments of ``YesNoReward`` except ``question`` and ``answers``.

    Raises:
        OSError, TypeError, ValueError: as of ``YesNoReward``.
        ValueError: the model has no chat template.
    """
    asked = instruction.replace("{", "{{").replace("}", "}}")
    question = QuestionTemplate(
        f"<Instruct>: {asked}<Query>:{{prompt}}\n<Document>:{{images}}", system=_RERANKER_SYSTEM
    )
    return YesNoReward(model, question=question, answers=("yes", "no"), **options)


def vqascore(model: ModelSource, **options: Any) -> AnswerProbabilityReward:
    """VQAScore (Lin et al., 2024) by any VLM: P("Yes") for its question among all tokens.

    ``reward.probability(images, prompt="a red cube")`` is the score, the reward its logarithm.
    Scores of different models are not comparable; CLIP-FlanT5, the model of the paper, is not a
    model of transformers.

    Args:
        model: a model, its name, or another reward; see ``YesNoReward``.
        **options: the other arguments of ``AnswerProbabilityReward``.

    Raises:
        OSError, TypeError, ValueError: as of ``AnswerProbabilityReward``.
    """
    return AnswerProbabilityReward(model, **{"question": "vqascore", **options})
