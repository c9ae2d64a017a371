"""Models of published configurations: small layers and random weights, all else as published.

``tests/support/published/README.md`` says where each value comes from.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

__all__ = ["NAMES", "ROOT", "build", "facts", "write_folder"]

ROOT = Path(__file__).parent / "published"
NAMES = sorted(path.parent.name for path in ROOT.glob("*/published.json"))
"""Names of the checkpoints, without their owners."""

_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "chat_template.jinja")
_SENTENCES = [
    "Yes No yes no Answer Yes or No. Strictly respond with only 'Yes' or 'No'.",
    "Does this image show a red cube on top of a blue sphere? Yes. No.",
    "Yes",
    "No",
    "system user assistant model User: Assistant: You are a helpful assistant. ASSISTANT: Yes",
]
_ROWS = 1021
"""Rows of a large table of embeddings that are drawn; the others repeat them."""


def facts(name: str) -> dict:
    """Facts about a checkpoint that are not in its files."""
    return json.loads((ROOT / name / "published.json").read_text(encoding="utf-8"))


def _merged(config: dict, changes: dict) -> dict:
    """A configuration with some values replaced, however deep."""
    out = dict(config)
    for key, value in changes.items():
        out[key] = _merged(config.get(key, {}), value) if isinstance(value, dict) else value
    return out


@functools.cache
def _trained(kind: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Pieces and merges of a small byte-pair encoding, by bytes or by characters."""
    tokenizer = Tokenizer(models.BPE())
    options = {"vocab_size": 420, "show_progress": False}
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.train_from_iterator(_SENTENCES * 8, trainers.BpeTrainer(**options))
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    if kind == "pieces":
        pieces = [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    return tuple(pieces), tuple(map(tuple, model["merges"]))


def tokenizer(spec: dict) -> PreTrainedTokenizerFast:
    """A tokenizer of few pieces with all special tokens at their published ids.

    By bytes as those of Qwen, GLM, Llama 3 and SmolLM; or by pieces of text with bytes for what is
    unknown as those of Gemma, and, with a space before every text, of Llama 2 and Mistral.
    """
    pieces, merges = _trained(spec["kind"])
    special, plain = spec["special"], spec.get("plain", {})
    taken = set(special.values()) | set(plain.values())
    free = (i for i in range(10**6) if i not in taken)
    vocabulary = {**special, **plain} | {piece: next(free) for piece in pieces}
    bytewise = spec["kind"] == "bytes"
    options = {} if bytewise else {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    out = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), **options))
    prefix = spec.get("prefix", False)
    if bytewise:
        out.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        out.decoder = decoders.ByteLevel()
    else:
        before = [normalizers.Prepend("▁")] if prefix else []
        out.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
        after = [decoders.Strip(" ", 1, 0)] if prefix else []
        out.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *after]
        )
    out.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    out.add_tokens([AddedToken(t, normalized=False) for t in plain])
    first = spec.get("bos_token")
    if spec.get("adds_bos"):
        out.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, special[first])]
        )
    names = ("bos_token", "eos_token", "pad_token", "unk_token", "padding_side")
    named = {key: spec[key] for key in names if key in spec}
    made = PreTrainedTokenizerFast(
        tokenizer_object=out, extra_special_tokens=spec.get("named", {}), **named
    )
    others = [t for t in special if t not in made.all_special_tokens]
    made.add_special_tokens(
        {"additional_special_tokens": others}, replace_extra_special_tokens=False
    )
    return made


def write_folder(name: str, folder: Path, *, small: bool) -> None:
    """Write all files of a checkpoint but its weights.

    Args:
        name: one of ``NAMES``.
        folder: an existing folder.
        small: True for few and narrow layers, False for the published size.
    """
    known = facts(name)
    tokenizer(known["tokenizer"]).save_pretrained(folder)
    for file in _FILES:
        path = ROOT / name / file
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            if file == "config.json" and small:
                text = json.dumps(_merged(json.loads(text), known["shrink"]))
            (folder / file).write_text(text, encoding="utf-8")


@torch.no_grad()
def _randomize(model: torch.nn.Module) -> None:
    """Random weights, so large that answers depend on the images; nothing is initialized yet."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            centered = not name.endswith("weight") and "alpha" not in name
            parameter.copy_(0.1 * torch.randn_like(parameter) + (0 if centered else 1))
            continue
        drawn = torch.randn(min(len(parameter), _ROWS), *parameter.shape[1:])
        drawn *= 1.3 * parameter[0].numel() ** -0.5
        for start in range(0, len(parameter), _ROWS):
            part = parameter[start : start + _ROWS]
            part.copy_(drawn[: len(part)])


def build(name: str, folder: Path, seed: int = 0) -> torch.nn.Module:
    """Write a small model of a checkpoint, as it would be downloaded.

    Args:
        name: one of ``NAMES``.
        folder: an existing folder, for all files.
        seed: seed of the random weights.

    Returns:
        The same model in float64, untouched.
    """
    write_folder(name, folder, small=True)
    published = (folder / "config.json").read_text(encoding="utf-8")
    torch.manual_seed(seed)
    with no_init_weights():
        model = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.float32
        )
    _randomize(model)
    model.tie_weights()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(published, encoding="utf-8")  # not as saved by now
    return model.eval().requires_grad_(False).double()
