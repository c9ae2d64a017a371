"""Reward3D (DreamReward; Ye et al., 2024): a learnt human preference of four views and a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.models.devices import checked_device
from vlmreward.models.reward3d import Reward3DNetwork, load_network
from vlmreward.models.reward3d.heads import N_VIEWS
from vlmreward.models.reward3d.network import image_processor
from vlmreward.models.text_tokenizer import load_tokenizer
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text

__all__ = ["Reward3D"]

_LONGEST = 100
"""Largest number of tokens of a text; longer texts are truncated."""


class Reward3D(RewardModule):
    """The predicted human preference for four views of an object, given the prompt.

    The call is that of every reward, with four images a query:
    ``reward(images (B, 4, 3, H, W), prompt)``. All views share the prompt; ``of_views`` takes one
    text per view, as in the authors' code, where each text names the side that the view shows.

    Images are resized to 224 pixels (the shorter side, bicubic), cropped and normalized as CLIP's.

    Args:
        network: Network of Reward3D.
        tokenizer: BERT's tokenizer, an object of transformers.
        pixel_mode: Degree to which the forward pass follows 8-bit images, one of
            ``vlmreward.processors.PIXEL_MODES``.
    """

    n_views = N_VIEWS

    def __init__(
        self, network: Reward3DNetwork, tokenizer: Any, *, pixel_mode: str = "float"
    ) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        self.processor = image_processor(network.image_size, pixel_mode)

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path = "yejunliang23/Reward3D/Reward3D_CrossViewFusion.pt",
        *,
        tokenizer: str | Path = "google-bert/bert-base-uncased",
        pixel_mode: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        head_channels: int = 64,
    ) -> Reward3D:
        """Load one of the authors' two checkpoints; the kind is read from the tensors.

        Args:
            source: Path of the file, or hub id and file name joined by "/". The file name of the
                other checkpoint is "Reward3D_Scorer.pt".
            tokenizer: Folder or hub id of BERT's tokenizer, which the file does not hold.
            pixel_mode: Pixel mode, one of ``vlmreward.processors.PIXEL_MODES``.
            device: Device of the network; None for the CPU.
            dtype: Dtype of the weights.
            head_channels: Number of channels of an attention head.

        Raises:
            OSError: The file or the tokenizer is missing or damaged, or cannot be reached.
            ValueError: The file is of another model, or the device does not exist.
        """
        where = checked_device(device) or torch.device("cpu")
        network = load_network(source, dtype=dtype, head_channels=head_channels)
        return cls(network.to(where), load_tokenizer(tokenizer), pixel_mode=pixel_mode)

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The reward ``(B,)`` of each query of four views; the only placeholder is the prompt."""
        if set(values) != {"prompt"}:
            raise ValueError(
                f"received the values {sorted(values)}; expected the prompt alone: Reward3D has no "
                "question with placeholders"
            )
        prompt = values["prompt"]
        told = [prompt] * len(batch) if isinstance(prompt, str) else list(prompt)
        return self._of_texts(batch, [[text] * N_VIEWS for text in told])

    def of_views(self, images: Images, texts: Sequence[Sequence[str]]) -> torch.Tensor:
        """The reward with a separate text for each view.

        Args:
            images: Four views a query, in any layout of ``forward``.
            texts: Four texts for each of the B queries.

        Returns:
            ``(B,)``, as ``forward``.

        Raises:
            TypeError, ValueError: As of ``forward``, or there are not four texts a query.
        """
        return self._of_texts(ImageBatch.of(images), texts)

    def _of_texts(self, batch: ImageBatch, texts: Sequence[Sequence[str]]) -> torch.Tensor:
        if set(batch.counts) != {N_VIEWS}:
            raise ValueError(
                f"received {sorted(set(batch.counts))} views a query; expected {N_VIEWS}: pass "
                f"images (B, {N_VIEWS}, 3, H, W)"
            )
        flat = [text for query in texts for text in query]
        if len(texts) != len(batch) or len(flat) != N_VIEWS * len(batch):
            raise ValueError(
                f"received {len(flat)} texts for {len(texts)} queries with {len(batch)} queries of "
                f"images; expected one prompt a query, or {N_VIEWS} texts"
            )
        if not all(isinstance(text, str) for text in flat):
            raise TypeError(f"received {flat[0]!r} among the texts; expected texts")
        batch.check_values()
        parameter = next(self.network.parameters())
        pixels = self.processor(batch.views, validate=False)["pixel_values"]
        tokens = self.tokenizer(
            flat, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
        ).to(parameter.device)
        reward = self.network(pixels.to(parameter), tokens["input_ids"], tokens["attention_mask"])
        double = reward.dtype == torch.float64
        return reward.to(batch.device, torch.float64 if double else torch.float32)
