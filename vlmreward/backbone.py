"""The narrow adapter around a vision-language model of transformers.

The text side is Hugging Face's: the token layout of a prompt with images of given sizes is asked
once from the model's own processor, with blank images, and kept. The image side is ours, because
gradients have to pass through it.
"""

from __future__ import annotations

import importlib.util
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmreward import processors
from vlmreward.attention import use_batched_windows
from vlmreward.processors.qwen2_vl import Qwen2VLProcessor

__all__ = ["Backbone", "Layout"]

_BUILTIN = {"builtin/blocks": ("vlmreward_3d", "blocks/weights/vlm")}
_ROWS_KEPT = 1024
_LAYOUTS_KEPT = 64

Size = tuple[int, int]


@dataclass(frozen=True)
class _Row:
    """One query as the model reads it, on the CPU: ids and token types (L,), positions (3, L)."""

    input_ids: torch.Tensor
    token_types: torch.Tensor
    positions: torch.Tensor
    grids: torch.Tensor


@dataclass(frozen=True)
class Layout:
    """A batch of queries without their pixels, padded on the right.

    Attributes:
        inputs: keyword arguments of the model, on its device.
        last: ``(B,)`` index of each query's last token, whose logits are the answer.
        grids: ``(N, 3)`` patches of every image, on the CPU.
    """

    inputs: dict[str, torch.Tensor]
    last: torch.Tensor
    grids: torch.Tensor


def _resolve(source: str) -> str:
    """Name of a model -> what transformers can load."""
    if source not in _BUILTIN:
        return source
    package, inside = _BUILTIN[source]
    spec = importlib.util.find_spec(package)  # finds the folder without importing anything
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder, inside)).joinpath("config.json").is_file():
            return str(path)
    raise FileNotFoundError(
        f"the weights of {source!r} are not installed; expected {inside} inside {package}: "
        "install from a full checkout, or pass a model id or folder"
    )


def _local_files_only(path: str) -> bool:
    """Whether to load from disk alone, because the hub does not answer for this model.

    transformers asks again for every file and for minutes before it believes that there is no
    network, so it is asked about once here. Any failure will do: what counts is what is on disk.
    """
    if Path(path).is_dir():
        return True
    try:
        HfApi().model_info(path, timeout=10)
    except Exception:
        return True
    return False


def _load(source: str, device: torch.device, dtype: torch.dtype | None) -> tuple[Any, Any]:
    path = _resolve(source)
    local = _local_files_only(path)
    wanted: Any = dtype or ("auto" if device.type == "cuda" else torch.float32)
    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=local)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            path, dtype=wanted, local_files_only=local
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"cannot load {source!r} ({reason.rstrip('.')}); expected a local folder saved by "
            "transformers, a model id that is cached or reachable, or 'builtin/blocks': check the "
            "name and the network, or download the model first"
        ) from error
    return model.to(device), processor


class _Recent:
    """Results by key; forgets what was not asked for longest."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[Any, Any] = OrderedDict()

    def recall(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
            if len(self.kept) > self.size:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


class Backbone(nn.Module):
    """A frozen vision-language model that scores answers to questions about images.

    Args:
        model: hub id, local folder, ``"builtin/blocks"``, or a ``(model, processor)`` pair of
            transformers objects. The parameters are frozen and the model put into eval mode, a
            pair's too.
        pixels: see ``vlmreward.processors.PIXELS``.
        device: where to run. Default: where a pair's model is; for loaded models the GPU if there
            is one.
        dtype: of the parameters. Default: as a pair's model has them; for loaded models the
            checkpoint's on a GPU and float32 on a CPU.

    Raises:
        OSError: the model cannot be loaded.
        TypeError: it is not of a supported family.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | tuple[Any, Any],
        *,
        pixels: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, (str, os.PathLike)):
            if device is None:
                device = "cuda" if torch.cuda.is_available() else "cpu"
            vlm, processor = _load(os.fspath(model), torch.device(device), dtype)
        elif isinstance(model, (tuple, list)) and len(model) == 2:
            vlm, processor = model
            if device is not None or dtype is not None:
                vlm = vlm.to(device=device, dtype=dtype)
        else:
            raise TypeError(
                f"model is a {type(model).__name__}; expected a model id, a folder, "
                "'builtin/blocks' or a (model, processor) pair"
            )
        self.vlm = vlm.requires_grad_(False).eval()
        use_batched_windows(self.vlm)
        self.processor = processor
        self.images = processors.from_hf(processor, pixels=pixels)
        if not isinstance(self.images, Qwen2VLProcessor):
            raise TypeError(
                f"model is a {type(self.vlm).__name__}; expected one of the Qwen2-VL or Qwen2.5-VL "
                "architecture: rewards of other families are not supported yet"
            )
        self._rows = _Recent(_ROWS_KEPT)
        self._layouts = _Recent(_LAYOUTS_KEPT)

    @property
    def device(self) -> torch.device:
        """Where the images are wanted."""
        return self.vlm.device

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model scores."""
        return int(self.vlm.get_output_embeddings().weight.shape[0])

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode whatever the surrounding module does: a reward has no dropout."""
        return super().train(False)

    def render(self, text: str, images: int) -> str:
        """The prompt with its chat markup, image placeholders and generation prompt, as text."""
        content: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
        content.append({"type": "text", "text": text})
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def tokenize(self, text: str) -> list[int]:
        """Text, markup included, -> token ids, with nothing added at the ends."""
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def describe(self, token: int) -> str:
        """A token id as text."""
        return self.processor.tokenizer.decode([token])

    def _ask(self, text: str, sizes: tuple[Size, ...]) -> _Row:
        """Layout of one query, from the model's own processor and with blank images."""
        for token in self.processor.tokenizer.all_special_tokens:
            if token in text:
                raise ValueError(
                    f"the prompt contains {token!r}, which is markup to this model; expected plain "
                    "text: chat markup and image placeholders are added by themselves"
                )
        blank = {size: torch.zeros(3, *size, dtype=torch.uint8) for size in set(sizes)}
        asked = self.processor(
            text=[self.render(text, len(sizes))],
            images=[blank[size] for size in sizes],
            return_tensors="pt",
            return_mm_token_type_ids=True,
        )
        # Without token types the model silently falls back to one-dimensional positions
        positions, _ = self.vlm.base_model.get_rope_index(
            asked["input_ids"],
            mm_token_type_ids=asked["mm_token_type_ids"],
            image_grid_thw=asked["image_grid_thw"],
        )
        return _Row(
            asked["input_ids"][0],
            asked["mm_token_type_ids"][0],
            positions[:, 0],
            asked["image_grid_thw"],
        )

    def _row(self, text: str, sizes: tuple[Size, ...]) -> _Row:
        return self._rows.recall((text, sizes), lambda: self._ask(text, sizes))

    def _assemble(self, rows: Sequence[_Row]) -> Layout:
        """Rows -> a batch, padded on the right.

        Tokens see only what precedes them, so padding behind a query needs no attention mask and
        cannot change its answer; the answer is read at the query's own last token.
        """
        lengths = torch.tensor([len(row.input_ids) for row in rows])
        width = int(lengths.max())

        def padded(parts: list[torch.Tensor], dim: int, value: int = 0) -> torch.Tensor:
            return torch.stack(
                [nn.functional.pad(p, (0, width - p.shape[-1]), value=value) for p in parts], dim
            ).to(self.device)

        pad_token = self.processor.tokenizer.pad_token_id or 0
        grids = torch.cat([row.grids for row in rows])
        return Layout(
            inputs={
                "input_ids": padded([row.input_ids for row in rows], 0, pad_token),
                "mm_token_type_ids": padded([row.token_types for row in rows], 0),
                "position_ids": padded([row.positions for row in rows], 1),
                "image_grid_thw": grids.to(self.device),
            },
            last=(lengths - 1).to(self.device),
            grids=grids,
        )

    def layout(self, texts: Sequence[str], sizes: Sequence[Sequence[Size]]) -> Layout:
        """Token layout of a batch of queries; only what was never asked before costs time.

        Args:
            texts: B questions.
            sizes: for each question, ``(height, width)`` of its images, in order.

        Returns:
            The batch without pixels; a shared object, not to be changed.
        """
        queries = tuple((text, tuple(size)) for text, size in zip(texts, sizes, strict=True))

        def make() -> Layout:
            # The layout outlives the call, which may run under inference_mode
            with torch.inference_mode(False), torch.no_grad():
                return self._assemble([self._row(*query) for query in queries])

        return self._layouts.recall((queries, self.device), make)

    def answer_logits(
        self,
        images: torch.Tensor | Sequence[torch.Tensor],
        layout: Layout,
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Logits of some tokens as the next one after each query.

        Args:
            images: all images of all queries in order, checked: floating ``(N, 3, H, W)`` or a
                list of ``(3, H, W)``, in [0, 1].
            layout: of these queries and sizes.
            tokens: K token ids.

        Returns:
            ``(B, K)`` float32 (float64 for a float64 model) on the model's device; differentiable
            to the images.
        """
        if isinstance(images, torch.Tensor):
            images = images.to(self.device)
        else:
            images = [image.to(self.device) for image in images]
        # An autocast of the surrounding loop, fp16 above all, would overflow inside these models
        with torch.autocast(self.device.type, enabled=False):
            pixels = self.images.process(images)
            if not torch.equal(pixels.pop("image_grid_thw"), layout.grids):
                raise RuntimeError(
                    "image grids differ from those of the model's own processor; expected equal "
                    "ones: was its configuration changed after loading? build the reward anew"
                )
            hidden = self.vlm.base_model(
                **layout.inputs, **pixels, use_cache=False
            ).last_hidden_state
            rows = torch.arange(len(layout.last), device=hidden.device)
            return self._score(hidden[rows, layout.last], tokens)

    def _score(self, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Only the rows of the output matrix that count, in at least float32."""
        head = self.vlm.get_output_embeddings()
        wanted = torch.promote_types(hidden.dtype, torch.float32)
        if type(head) is nn.Linear:
            # One by one, because a list of indices would have to be copied to a GPU every time
            matrix = torch.stack([head.weight[token] for token in tokens]).to(wanted)
            logits = hidden.to(wanted) @ matrix.T
            if head.bias is not None:
                logits = logits + torch.stack([head.bias[token] for token in tokens]).to(wanted)
        else:  # quantised or adapted: its rows cannot be taken out
            logits = head(hidden)[:, list(tokens)].to(wanted)
        cap = getattr(self.vlm.config.get_text_config(), "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits
