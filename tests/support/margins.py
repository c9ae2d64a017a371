"""Log-odds by transformers' own forward pass."""

from __future__ import annotations

import torch
from torchvision.transforms.functional import to_pil_image

__all__ = ["PROMPTS", "QUESTION", "hf_margin", "levels", "unit"]

QUESTION = "Does this image show {prompt}? Answer Yes or No."


PROMPTS = ["a cat", "a red cube on top of a blue sphere", "no dog"]


def levels(*sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=g, dtype=torch.uint8) for size in sizes]


def unit(queries):
    return [[view / 255 for view in views] for views in queries]


def hf_margin(pair, queries, prompts, answers):
    """Log-odds by transformers alone: processor(text, images) and all logits."""
    model, processor = pair
    questions = [QUESTION.format(prompt=prompt) for prompt in prompts]
    pictures = [[to_pil_image(view) for view in views] for views in queries]
    kind = model.config.model_type
    if kind == "idefics":
        questions = [
            ["User:", *v, f"{q}<end_of_utterance>\nAssistant:"] for v, q in zip(pictures, questions)
        ]
        inputs = processor(text=questions, padding="longest", return_tensors="pt")
    else:
        if kind == "paligemma":
            questions = ["<image>" * len(v) + q for v, q in zip(pictures, questions)]
        else:
            questions = [
                processor.apply_chat_template(
                    [
                        {
                            "role": "user",
                            "content": [
                                *[{"type": "image"}] * len(v),
                                {"type": "text", "text": q},
                            ],
                        }
                    ],
                    add_generation_prompt=True,
                )
                for v, q in zip(pictures, questions)
            ]
        images = [p for row in pictures for p in row] if kind.startswith("qwen") else pictures
        inputs = processor(text=questions, images=images, padding=True, return_tensors="pt")
    inputs.pop("labels", None)
    with torch.no_grad():
        logits = model(**inputs).logits
    mask = inputs["attention_mask"]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    z = logits[torch.arange(len(last)), last]
    return z[:, answers.positive].logsumexp(1) - z[:, answers.negative].logsumexp(1)
