"""The built-in VLM: a small Qwen2.5-VL, and its forward pass over many questions at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vlmreward import processors
from vlmreward.models._acceleration.window_attention import use_batched_windows
from vlmreward.models.vocabulary import KNOWN_WORDS
from vlmreward_3d.blocks.training.tokenizer import CHAT_TEMPLATE, train_tokenizer
from vlmreward_3d.blocks.world.captions import (
    PRESENCE_WORDS,
    RICH_WORDS,
    Question,
    known_words,
)
from vlmreward_3d.blocks.world.dataset import VIEW_SIZE
from vlmreward_3d.blocks.world.ground_truth import Facts, iter_labels

PATCH, MERGE = 8, 2


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """Processor of the built-in VLM, which resizes every picture to about 64 x 64 pixels."""
    sizes = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "size": {"shortest_edge": VIEW_SIZE**2, "longest_edge": VIEW_SIZE**2},
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


@torch.no_grad()
def mimetic_attention_init(language_model: nn.Module) -> None:
    """Initialize half of the attention heads with equal query and key projections, in place.

    Both are the same orthonormal projection, so that a token attends to tokens like itself (mimetic
    initialization, Trockman and Kolter, 2023). A word of a question then attends from the first
    step on to the image tokens that the word-presence loss has brought close to it.
    """
    for layer in language_model.layers:  # type: ignore[union-attr]
        attention = layer.self_attn
        half = attention.q_proj.weight.shape[0] // 2
        nn.init.orthogonal_(attention.q_proj.weight[:half], gain=0.7)
        attention.k_proj.weight[:half] = attention.q_proj.weight[:half]


def build_vlm(
    seed: int = 0, *, rich: bool = False
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """The model with random weights, and its processor, optionally with words of compositions."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(768, rich=True) if rich else train_tokenizer()
    tokenizer.init_kwargs[KNOWN_WORDS] = known_words(rich=rich)
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in tokenizer.all_special_tokens}
    hidden, heads = 192, 6
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1.0e6,
                "mrope_section": [4, 6, 6],
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 6,
            "hidden_size": 160,
            "intermediate_size": 384,
            "num_heads": 5,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": VIEW_SIZE // 2,
            "fullatt_block_indexes": [1, 3, 5],
            "out_hidden_size": hidden,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    config.eos_token_id = ids["<|im_end|>"]
    model = Qwen2_5_VLForConditionalGeneration(config)
    mimetic_attention_init(model.model.language_model)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model, build_processor(tokenizer)


@dataclass(frozen=True)
class Packed:
    """Answers to Q packed questions about N scenes.

    Attributes:
        logits: (Q, vocabulary) float32, scene after scene.
        input_ids: (N, L) the packed sequences.
        middle: (N, L, D) hidden states half way up the language model.
    """

    logits: Tensor
    input_ids: Tensor
    middle: Tensor


class PackedVLM(nn.Module):
    """The VLM with a forward pass that answers several questions per scene.

    The views come first; then the questions, each of which attends to the views and to itself but
    to no other question, at the positions that it has when it is asked alone. An answer is
    therefore the same as in a call of its own.
    """

    words: Tensor

    def __init__(
        self, vlm: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
    ) -> None:
        super().__init__()
        self.vlm = vlm
        self.tokenizer = processor.tokenizer
        self.images = processors.from_hf(processor.image_processor)
        use_batched_windows(vlm)
        (self.yes,), (self.no,) = (
            self.tokenizer("Yes")["input_ids"],
            self.tokenizer("No")["input_ids"],
        )
        known = {*self.tokenizer.init_kwargs.get(KNOWN_WORDS, ())}
        rich = known.issuperset(RICH_WORDS)
        self.vocabulary = PRESENCE_WORDS + (RICH_WORDS if rich else ())
        words = [self.tokenizer(" " + w)["input_ids"][0] for w in self.vocabulary]
        self.register_buffer("words", torch.tensor(words), persistent=False)
        self.presence = nn.Parameter(torch.tensor([2.3, -2.0]))  # log scale and bias
        self.probe = nn.Linear(vlm.config.text_config.hidden_size, 3)
        self._prefixes: dict[int, tuple[Tensor, Tensor, int]] = {}

    def look(self, images: Tensor) -> Tensor:
        """Image tokens (N, V * 16, D) of views (N, V, 3, 64, 64) in [0, 1]."""
        n = images.shape[0]
        inputs = self.images(images.flatten(0, 1))
        grid = inputs["image_grid_thw"]
        return self.vlm.model.visual(inputs["pixel_values"], grid_thw=grid).pooler_output.reshape(
            n, -1, self.vlm.config.text_config.hidden_size
        )

    def presence_loss(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Word-presence loss: image tokens (N, T, D) against labels (N, V, T / V, W), NaN ignored.

        Cosine of each image token with the input embedding of each word, as the logit of the word
        being true there. It puts image tokens and words in one space, without which yes/no answers
        stay at chance for very long.
        """
        table = self.vlm.get_input_embeddings().weight[self.words]
        cosine = F.normalize(tokens.float(), dim=-1) @ F.normalize(table.float(), dim=-1).T
        logits = cosine * self.presence[0].exp() + self.presence[1]
        labels = labels.flatten(1, 2)[..., : len(self.vocabulary)]
        known = ~labels.isnan()
        weight = torch.where(labels > 0.5, 3.0, 1.0)[known]
        return F.binary_cross_entropy_with_logits(logits[known], labels[known], weight)

    def _prefix(self, views: int) -> tuple[Tensor, Tensor, int]:
        """Ids (P,), positions (3, P) and the next position, for ``views`` views of 4 x 4 tokens."""
        if views not in self._prefixes:
            side = VIEW_SIZE // (PATCH * MERGE)
            view = "<|vision_start|>" + "<|image_pad|>" * side**2 + "<|vision_end|>"
            ids = torch.tensor(self.tokenizer("<|im_start|>user\n" + view * views)["input_ids"])
            grid = torch.tensor([[1, side * MERGE, side * MERGE]] * views)
            types = (ids == self.vlm.config.image_token_id).int()
            positions, _ = self.vlm.model.get_rope_index(
                ids[None], mm_token_type_ids=types[None], image_grid_thw=grid
            )
            self._prefixes[views] = (ids, positions[:, 0], int(positions.max()) + 1)
        return self._prefixes[views]

    def probe_loss(self, packed: Packed, facts: list[Facts | None]) -> Tensor:
        """Word-truth loss: cross-entropy of linear probes at the words of questions.

        At each word with a label from ``facts.iter_labels``, a probe of the hidden state half way
        up the language model predicts the label. The loss teaches the steps of an answer, to find a
        word in the views and to combine words, long before whole answers do. Scenes without facts
        are left out.
        """
        names: dict[int, str | None] = dict(zip(self.words.tolist(), self.vocabulary))
        names[self.vlm.generation_config.eos_token_id] = None
        rows, spots, kinds, labels = [], [], [], []
        for row, (ids, fact) in enumerate(zip(packed.input_ids.tolist(), facts)):
            if fact is None:
                continue
            for spot, kind, true in iter_labels([names.get(i, "") for i in ids], fact):
                rows.append(row)
                spots.append(spot)
                kinds.append(kind)
                labels.append(float(true))
        if not rows:
            return packed.middle.new_zeros((), dtype=torch.float32)
        known = self.probe(packed.middle[rows, spots].float())
        chosen = known[torch.arange(len(kinds)), kinds]
        return F.binary_cross_entropy_with_logits(chosen, chosen.new_tensor(labels))

    def answer(self, tokens: Tensor, questions: list[list[Question]], views: int) -> Packed:
        """All questions of all scenes in one pass over the image tokens (N, V * 16, D)."""
        ids, positions, start = self._prefix(views)
        rows, spots, segments, ends = [], [], [], []
        for asked in questions:
            row, spot, mark, end = [ids], [positions], [torch.zeros(len(ids))], []
            length = len(ids)
            for k, question in enumerate(asked, 1):
                text = question.text + "<|im_end|>\n<|im_start|>assistant\n"
                part = torch.tensor(self.tokenizer(text)["input_ids"])
                row.append(part)
                spot.append((start + torch.arange(len(part))).expand(3, -1))
                mark.append(torch.full((len(part),), float(k)))
                length += len(part)
                end.append(length - 1)
            rows.append(torch.cat(row))
            spots.append(torch.cat(spot, 1))
            segments.append(torch.cat(mark))
            ends.append(end)
        width = max(len(r) for r in rows)
        device = tokens.device
        input_ids = torch.stack([F.pad(r, (0, width - len(r))) for r in rows]).to(device)
        position_ids = torch.stack([F.pad(s, (0, width - s.shape[1])) for s in spots], 1)
        position_ids = position_ids.to(device)
        segment = torch.stack([F.pad(s, (0, width - len(s)), value=-1) for s in segments]).to(
            device
        )
        order = torch.arange(width, device=device)
        same = segment[:, :, None] == segment[:, None, :]
        allowed = (same | (segment[:, None, :] == 0)) & (order[:, None] >= order[None, :])
        embedded = self.vlm.get_input_embeddings()(input_ids)
        where = (input_ids == self.vlm.config.image_token_id)[..., None].expand_as(embedded)
        embedded = embedded.masked_scatter(where, tokens.to(embedded.dtype))
        hidden = self.vlm.model.language_model(
            inputs_embeds=embedded,
            position_ids=position_ids,
            attention_mask={"full_attention": allowed[:, None]},
            use_cache=False,
            output_hidden_states=True,
        )
        last = hidden.last_hidden_state
        picked = torch.cat([last[i, end] for i, end in enumerate(ends)])
        middle = hidden.hidden_states[len(hidden.hidden_states) // 2]
        return Packed(self.vlm.lm_head(picked).float(), input_ids, middle)

    def margins(self, images: Tensor, questions: list[list[Question]]) -> Tensor:
        """Log-odds of Yes (Q,) for all questions about views (N, V, 3, 64, 64)."""
        logits = self.answer(self.look(images), questions, images.shape[1]).logits
        return logits[:, self.yes] - logits[:, self.no]
