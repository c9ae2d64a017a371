"""Time and memory of one step of the reward (value and gradient at the pixels), and of K questions.

    python examples/benchmarks/benchmark_reward.py                         # a small model, on the
    CPU
    python examples/benchmarks/benchmark_reward.py --model-config 7b --random-weights --device cuda

First table, one question about eight views, the same weights for all:

- straightforward: Hugging Face's processor (torchvision backend) in every step, its model as it is
  loaded: all logits, vision windows one by one, gradients for the parameters too.
- ours; with its layers compiled; and with checkpoint=True.

Second table, K questions about the same views: one of them, all in one look (`CompositeReward`),
and one
call after the other. Contenders take turns in one process; the memory is the peak that a step adds
in a process of its own, and the weights are counted with it.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import starting  # isort: skip

import torch
import transformers
from benchmark_processors import high_water, picture, timed
from machine import hardware
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vlmreward import CompositeReward, YesNoReward
from vlmreward.cli import process
from vlmreward.cli.arguments import path, positive, threads
from vlmreward.models.loading import resolve
from vlmreward.utils.progress import progress_bar

STEP = ("straightforward", "ours", "ours, compiled", "ours, checkpointed")
QUESTIONS = ("one question", "in one look", "one by one")
QUESTION = "Does this object, seen from eight sides, show {prompt}? Answer Yes or No."
PROMPTS = (
    "a red cube",
    "a blue ball on a table",
    "something round",
    "two things that touch each other",
    "a toy car with four wheels",
    "sharp edges and flat faces",
    "the same thing in all views",
    "nothing that floats in the air",
)

# Shapes of Qwen2.5-VL; "small" keeps the proportions of "7b": depth against width, the share of the
# vision tower, and a vocabulary whose product with the last layer is as small a part of the work
CONFIGS: dict[str, dict[str, Any]] = {
    "small": {
        "text_config": {
            "hidden_size": 384,
            "intermediate_size": 2048,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "vocab_size": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [16, 24, 24],
                "rope_theta": 1e6,
            },
        },
        "vision_config": {
            "depth": 8,
            "hidden_size": 160,
            "intermediate_size": 428,
            "num_heads": 2,
            "out_hidden_size": 384,
            "fullatt_block_indexes": [7],
        },
    },
    "7b": {
        "text_config": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [16, 24, 24],
                "rope_theta": 1e6,
            },
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
}


@dataclass(frozen=True)
class EncodedPrompt:
    """Seconds are the quartiles of a step; differences those to the separate or usual way."""

    contender: str
    seconds: tuple[float, float, float]
    memory_mib: float | None
    difference: float
    gradient_difference: float


def random_model(
    name: str, device: str, dtype: torch.dtype, depths: tuple[int, int] | None = None
) -> tuple[Any, Any]:
    """A model of that shape and a processor with the built-in VLM's tokenizer.

    `depths` are other numbers of layers, of the language model and of the vision tower.
    """
    processor = AutoProcessor.from_pretrained(resolve("builtin/blocks"), local_files_only=True)
    processor.image_processor = transformers.Qwen2VLImageProcessor()
    tokens = {
        f"{kind}_token_id": processor.tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for kind, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    config = Qwen2_5_VLConfig(**CONFIGS[name], **tokens)
    if depths is not None:
        config.text_config.num_hidden_layers, config.vision_config.depth = depths
        config.text_config.layer_types = config.text_config.layer_types[: depths[0]]
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval(), processor


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    dtype = getattr(torch, args.dtype)
    if args.model_config:
        return random_model(args.model_config, args.device, dtype)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(args.model, dtype=dtype)
    return model.to(args.device).eval(), AutoProcessor.from_pretrained(args.model)


Step = Callable[[torch.Tensor], torch.Tensor]
"""Images ``(1, V, 3, H, W)`` -> values; leaves the gradient of their sum in ``images.grad``."""


def straightforward(model: Any, processor: Any) -> Step:
    ids = [processor.tokenizer.convert_tokens_to_ids(answer) for answer in ("Yes", "No")]

    def step(images: torch.Tensor) -> torch.Tensor:
        content = [{"type": "image"} for _ in images[0]]
        content.append({"type": "text", "text": QUESTION.format(prompt=PROMPTS[0])})
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = processor(
            text=[text],
            images=list(images[0]),
            do_rescale=False,
            return_tensors="pt",
            device=images.device,
        ).to(images.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        logits = model(**inputs).logits[:, -1].float()
        value = logits[:, ids[0]] - logits[:, ids[1]]
        value.sum().backward()
        model.zero_grad()
        return value.detach()

    return step


def ours(reward: Callable[..., torch.Tensor], **placeholders: str) -> Step:
    def step(images: torch.Tensor) -> torch.Tensor:
        value = reward(images, **placeholders)
        value.sum().backward()
        return value.detach()

    return step


class Contenders:
    """Steps by name. One of Hugging Face's needs a model of its own, as ours freeze theirs."""

    def __init__(self, pair: tuple[Any, Any], names: Sequence[str], questions: int) -> None:
        self.steps: dict[str, Step] = {}
        if "straightforward" in names:
            model = copy.deepcopy(pair[0]) if len(names) > 1 else pair[0]
            self.steps["straightforward"] = straightforward(model, pair[1])
            if len(names) == 1:
                return
        if "ours, compiled" in names:
            model = copy.deepcopy(pair[0]) if len(names) > 1 else pair[0]
            compiled = YesNoReward((model, pair[1]), question=QUESTION)
            compiled.backbone.compile_layers(dynamic=False)
            self.steps["ours, compiled"] = ours(compiled, prompt=PROMPTS[0])
            if len(names) == 1:
                return
        self.reward = reward = YesNoReward(pair, question=QUESTION)
        asked = [
            reward.ask(QUESTION.replace("{prompt}", PROMPTS[i % len(PROMPTS)]))
            for i in range(questions)
        ]
        checklist = CompositeReward(asked, reduction="sum")
        alone = [ours(question) for question in asked]

        def one_look(images: torch.Tensor) -> torch.Tensor:
            values = torch.cat(list(checklist.per_reward(images).values()))
            values.sum().backward()
            return values.detach()

        self.steps |= {
            "ours": ours(reward, prompt=PROMPTS[0]),
            "ours, checkpointed": ours(reward, prompt=PROMPTS[0]),
            "one question": alone[0],
            "in one look": one_look,
            "one by one": lambda images: torch.cat([step(images) for step in alone]),
        }

    def timed(self, name: str, images: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Values and seconds of a step."""
        if name not in ("straightforward", "ours, compiled"):
            self.reward.backbone.set_checkpointing(on="checkpointed" in name)
        images.grad = None
        values, milliseconds = timed(lambda: self.steps[name](images), images.device)
        return values, milliseconds / 1e3


def views(args: argparse.Namespace) -> torch.Tensor:
    shape = (args.views, 3, args.size, args.size)
    return picture(shape, torch.device(args.device))[None].requires_grad_()


def peak_memory(args: argparse.Namespace, name: str) -> float | None:
    """MiB of the weights and of what a step adds at its peak. For a process of its own."""
    torch.set_num_threads(args.threads)
    pair = load(args)
    weights = sum(p.numel() * p.element_size() for p in pair[0].parameters())
    contenders = Contenders(pair, (name,), args.questions)
    images = views(args)
    if name == "ours, compiled":  # compiling takes memory of its own, once
        contenders.timed(name, images)
        if images.device.type == "cpu":
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = high_water(images.device)
    if before is None:
        return None
    contenders.timed(name, images)
    return (weights + high_water(images.device) - before) / 2**20


def measure(args: argparse.Namespace, pool: Any) -> list[EncodedPrompt]:
    names = STEP + QUESTIONS
    contenders = Contenders(load(args), names, args.questions)
    images = views(args)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}
    rounds = [name for _ in range(args.rounds + 1) for name in names]
    for name in progress_bar(rounds, desc="timing", unit="step"):
        out, duration = contenders.timed(name, images)
        if name in values:  # the first round warms up
            seconds[name].append(duration)
            continue
        values[name], gradients[name] = out, images.grad.clone()
    rows = []
    for name in progress_bar(names, desc="memory", unit="process"):
        reference = "straightforward" if name in STEP else "one by one"
        expected, gradient = values[reference], gradients[reference]
        if name == "one question":
            expected, gradient = values["one question"], gradients["one question"]
        rows.append(
            EncodedPrompt(
                contender=name,
                seconds=tuple(statistics.quantiles(seconds[name], n=4)),
                memory_mib=pool.apply(peak_memory, (args, name)),
                difference=float((values[name] - expected).abs().max()),
                gradient_difference=float((gradients[name] - gradient).norm() / gradient.norm()),
            )
        )
    return rows


def table(rows: list[EncodedPrompt], names: Sequence[str]) -> str:
    first = next(row for row in rows if row.contender == names[0])
    lines = [
        "| | seconds [quartiles] | time | peak MiB, weights included | memory "
        "| difference: values | gradient |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in (row for row in rows if row.contender in names):
        low, middle, high = row.seconds
        memory = "- | -"
        if row.memory_mib is not None and first.memory_mib:
            memory = f"{row.memory_mib:.0f} | {row.memory_mib / first.memory_mib:.2f}"
        lines.append(
            f"| {row.contender} | {middle:.3f} [{low:.3f}, {high:.3f}] | "
            f"{middle / first.seconds[1]:.2f} | {memory} | {row.difference:.1e} | "
            f"{row.gradient_difference:.1e} |"
        )
    return "\n".join(lines)


def heading(args: argparse.Namespace) -> str:
    model = f"{args.model_config} (random weights)" if args.model_config else args.model
    return (
        f"{datetime.date.today()}, {hardware(torch.device(args.device))}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}; {model}, {args.dtype}; "
        f"{args.views} views of {args.size} x {args.size}, {args.questions} questions, "
        f"{args.rounds} rounds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="hub id or folder of a Qwen2.5-VL model")
    parser.add_argument("--model-config", choices=CONFIGS, help="its shape (default small)")
    parser.add_argument(
        "--random-weights", action="store_true", help="with --model-config 7b: do not load any"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default by device")
    parser.add_argument("--views", type=positive, default=8, help="default 8")
    parser.add_argument("--size", type=positive, default=256, help="of a view (default 256)")
    parser.add_argument("--questions", type=positive, default=8, help="default 8")
    parser.add_argument("--rounds", type=positive, default=5, help="at least 3 (default 5)")
    parser.add_argument("--threads", type=threads, default=2, help="CPU threads (default 2)")
    parser.add_argument("--out", type=path, help="folder for the tables and the numbers")
    args = parser.parse_args()
    starting.done()
    try:
        process.usable_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    if args.model and args.model_config:
        parser.error("expected one of --model and --model-config")
    if args.model_config == "7b" and not args.random_weights:
        parser.error(
            "--model-config 7b has no weights; expected --random-weights beside it, or --model"
        )
    if args.rounds < 3:
        parser.error(f"received --rounds {args.rounds}; expected at least three")
    if not args.model:
        args.model_config = args.model_config or "small"
    args.dtype = args.dtype or ("bfloat16" if args.device.startswith("cuda") else "float32")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)

    # Children that have imported everything but computed nothing; each measures one peak
    context = multiprocessing.get_context("forkserver" if args.device == "cpu" else "spawn")
    if args.device == "cpu":
        context.set_forkserver_preload([__name__, "torchvision", "transformers"])
        # glibc gives large blocks back at once, so that the peak is that of what is alive
        os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)
    with context.Pool(1, maxtasksperchild=1) as pool:
        torch.set_num_threads(args.threads)
        rows = measure(args, pool)
    text = f"{heading(args)}\n\n{table(rows, STEP)}\n\n{table(rows, QUESTIONS)}\n"
    print(text)
    if args.out:
        (args.out / "reward.md").write_text(text, encoding="utf-8")
        (args.out / "reward.json").write_text(
            json.dumps({"run": heading(args), "rows": [asdict(row) for row in rows]}, indent=1)
        )


if __name__ == "__main__":
    main()
