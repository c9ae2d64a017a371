"""Time and memory of the parts of a step of VLM3D at paper scale, with random weights:

    python examples/benchmarks/benchmark_paper_scale.py --device cuda            # Qwen2.5-VL-7B,
    MVDream
    python examples/benchmarks/benchmark_paper_scale.py --count                  # operations
    alone, on a CPU
    python examples/benchmarks/benchmark_paper_scale.py --size small --rounds 3  # the same parts,
    tiny

For each phase of the preset "paper" (where resolution or number of views changes): milliseconds of
rendering (both passes of deferred back-propagation), of the autoencoder, the UNet (guided, so on
twice the views), the VLM (reward and gradient) and the optimizer, with quartiles; the share of the
floor, which is the part's counted floating-point operations at the rate of a large matrix product
measured in the same run; the extrapolation to the whole run, and on a GPU the peak of its memory.
The field is as it is at the start, when it fills more of the views than later.

The count has matrix products and convolutions, also those of attention, each once: a fused kernel
that computes the scores again on the way back has no more operations than one that keeps them.

`--count` runs no large model. UNet and autoencoder are counted without their values; the VLM at
full width with one and two of its 28 layers, and with one and two of the four groups of eight
layers of its vision tower, which gives all of them, as the count is linear in both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import starting  # isort: skip

import vlmreward_3d.guidance.diffusion  # isort: skip (first: without what the next say on import)

import diffusers
import torch
import transformers
from benchmark_processors import timed
from benchmark_reward import random_model
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from machine import hardware
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

import vlmreward_3d
from vlmreward import YesNoReward
from vlmreward.cli import process
from vlmreward.cli.arguments import path, positive
from vlmreward_3d import presets
from vlmreward_3d.cameras import sample_groups
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.loading import build_guidances
from vlmreward_3d.guidance.vlm import VLMGuidance
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training import profiling
from vlmreward_3d.vlm3d import VLM3D

UNETS: dict[str, dict[str, Any]] = {
    # of MVDream and Stable Diffusion 2.1; what convert_mvdream_unet finds in the checkpoint
    "full": {
        "sample_size": 32,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "small": {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": 32,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "use_linear_projection": True,
    },
}
VAES: dict[str, tuple[int, ...]] = {"full": (128, 256, 512, 512), "small": (32, 32)}
PARTS = ("render", "autoencoder", "UNet", "VLM", "optimizer")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("full", "small"), default="full", help="of the models")
    parser.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    parser.add_argument("--rounds", type=positive, default=10, help="default: %(default)s")
    parser.add_argument("--count", action="store_true", help="count operations, time nothing")
    parser.add_argument("--out", type=path, metavar="DIR", help="for the table and the numbers")
    return parser.parse_args(arguments)


def denoiser(size: str, device: torch.device, dtype: torch.dtype) -> MVDream:
    """MVDream of random weights; its text encoder is small, as it runs once."""
    folder = Path(vlmreward_3d.__file__).parent / "blocks" / "weights" / "denoiser" / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    unet_config = UNETS[size]
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=unet_config["cross_attention_dim"],
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=77 if size == "full" else 16,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device:
        unet = UNet2DConditionModel(
            **unet_config,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=16,
        )
        vae = AutoencoderKL(
            block_out_channels=VAES[size],
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * len(VAES[size]),
            up_block_types=("UpDecoderBlock2D",) * len(VAES[size]),
        )
        encoder = CLIPTextModel(text)
    torch.set_default_dtype(before)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return MVDream(unet, vae, encoder, tokenizer, scheduler).to(device)


def settings(size: str) -> VLM3DConfig:
    config = presets.paper("a cat in a hat", denoiser="random", vlm="random")
    if size == "full":
        return config
    later = [(at, 24) for at in config.camera.resolution.jumps]
    return config.replace(
        {
            "camera.resolution": Schedule.steps(16, *later),
            "vlm.resolution": 84,
            "field.resolutions": (4, 8),
            "field.occupancy.resolution": 8,
            "field.rays.samples_per_ray": 8,
            "field.rays.rays_per_chunk": 1024,
        }
    )


def parts_of(model: VLM3D, phase: profiling.Phase) -> dict[str, Callable[[], Any]]:
    """The parts of a step of a phase, each to be run by itself on the same views."""
    config, device = model.config, model.device
    guidances = {term.name: term.guidance for term in model.guidances.terms}
    denoiser, generator = guidances["sds"].denoiser, model.generator
    camera = config.camera
    cameras = sample_groups(
        phase.views // camera.views_per_group,
        camera.views_per_group,
        fov_deg=camera.fov_deg,
        elevation_deg=camera.elevation_deg,
        object_radius=camera.object_radius,
        generator=generator,
        device=device,
    )
    pixels = torch.rand(phase.views, 3, phase.resolution, phase.resolution, device=device)
    latents = denoiser.to_latents(pixels)
    t = torch.full((phase.views,), 500, device=device)
    teacher = guidances["sds"].prompts.seen_from(cameras, latents)
    regularizers = model.field.regularizers(phase.first / config.steps)

    def render() -> None:
        views = model.field.render(
            cameras,
            phase.resolution,
            background=torch.ones(phase.views, 3, device=device),
            normals=regularizers.orientation > 0,
            generator=generator,
        )
        views.backward(torch.ones_like(views.rgb), regularizers)

    def autoencoder() -> None:
        x = pixels.clone().requires_grad_()
        z = denoiser.to_latents(x)
        torch.autograd.grad(z, x, torch.ones_like(z))

    @torch.no_grad()
    def unet() -> None:
        teacher.predict(latents, t, ("negative", "prompt"))

    found: dict[str, Callable[[], Any]] = {
        "render": render,
        "autoencoder": autoencoder,
        "UNet": unet,
        "optimizer": model.optimizer.step,
    }
    if "vlm" in guidances and phase.vlm:
        found["VLM"] = lambda: guidances["vlm"](pixels)
    return found


def versions(device: torch.device) -> str:
    return (
        f"{datetime.date.today()}, {hardware(device)}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, diffusers {diffusers.__version__}"
    )


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    timed(lambda: a @ b, device)
    return 2 * n**3 / (statistics.median(timed(lambda: a @ b, device)[1] for _ in range(9)) / 1e3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = "7b" if options.size == "full" else "small"
    vlm = YesNoReward(random_model(name, options.device, dtype), question="paper/selected")
    config = settings(options.size)
    guidances = build_guidances(config, denoiser(options.size, device, dtype), vlm)
    model = VLM3D(config, guidances, device=device)
    model.field.update_occupancy(model.generator)
    rate = matrix_rate(device, dtype)
    rows, peak = [], None
    for phase in profiling.phases(config):
        parts = parts_of(model, phase)
        for run in parts.values():
            run()  # what is done once, like the reward's look at its answers, is no part of a step
        flops = {part: operations(run) for part, run in parts.items()}
        # after the count, which keeps the scores of attention
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds: dict[str, list[float]] = {part: [] for part in parts}
        for _ in tqdm(range(options.rounds), desc=f"{phase.resolution} px", unit="step"):
            for part, run in parts.items():
                seconds[part].append(timed(run, device)[1] / 1e3)
        if device.type == "cuda":
            peak = max(peak or 0, torch.cuda.max_memory_allocated(device))
        rows.append(
            {
                "first": phase.first,
                "steps": phase.steps,
                "views": phase.views,
                "side": phase.resolution,
                "seconds": seconds,
                "flops": flops,
            }
        )
    return {
        "run": f"{versions(device)}; {options.size} models, "
        f"{str(dtype).removeprefix('torch.')}, {options.rounds} rounds",
        "matrix_rate": rate,
        "peak": peak,
        "phases": rows,
    }


def table(measured: dict[str, Any]) -> str:
    lines = [
        f"{measured['run']}; matrix products at {measured['matrix_rate'] / 1e12:.2f} TFLOP/s",
        "",
        "| phase | part | ms [quartiles] | TFLOP | share of the floor |",
        "|---|---|--:|--:|--:|",
    ]
    total = 0.0
    for row in measured["phases"]:
        label, step = f"{row['views']} views of {row['side']} px, {row['steps']} steps", 0.0
        for part in PARTS:
            if part not in row["seconds"]:
                continue
            times = row["seconds"][part]
            low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
            step += middle
            flops = row["flops"][part]
            share = flops / measured["matrix_rate"] / middle
            lines.append(
                f"| {label} | {part} | {middle * 1e3:.1f} [{low * 1e3:.1f}, {high * 1e3:.1f}] | "
                f"{flops / 1e12:.3f} | {f'{share:.0%}' if flops else '-'} |"
            )
        lines.append(f"| {label} | **all** | {step * 1e3:.1f} | | |")
        total += step * row["steps"]
    lines += ["", f"Extrapolated to the whole run: {total / 3600:.2f} h"]
    if measured["peak"]:
        lines[-1] += f"; peak memory {measured['peak'] / 2**30:.1f} GiB"
    return "\n".join(lines) + "\n"


def operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in `run()`.

    Attention runs as plain matrix products meanwhile. The fused kernel that torch would choose
    depends on its version, the device and the shapes; some of them are not counted, and some count
    the scores twice on the way back.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def vlm_operations(
    size: str, pixels: torch.Tensor, prompt: str, resolution: int | None = None
) -> int:
    """Operations of a reward and its gradient in the whole VLM, extrapolated from shallow VLMs."""
    if size == "small":
        layers, groups, group = 6, 1, 8
    else:
        layers, groups, group = 28, 4, 8

    def shallow(text: int, vision: int) -> int:
        name = "7b" if size == "full" else "small"
        pair = random_model(name, "cpu", torch.bfloat16, (text, vision * group))
        # validation looks at the answers when a question is first asked, and never again
        reward = YesNoReward(pair, question="paper/selected", validate=False)
        guidance = VLMGuidance(reward, prompt, resolution=resolution)
        return operations(lambda: guidance(pixels))

    least = shallow(1, 1)
    a_layer = shallow(2, 1) - least
    a_group = shallow(1, 2) - least if groups > 1 else 0
    return least + (layers - 1) * a_layer + (groups - 1) * a_group


def teacher_operations(size: str, views: int) -> dict[str, int]:
    """Operations of the autoencoder with its gradient and of the guided UNet, on meta tensors."""
    meta = torch.device("meta")
    teacher, width = denoiser(size, meta, torch.float32), UNETS[size]["cross_attention_dim"]
    side = UNETS[size]["sample_size"] * 2 ** (len(VAES[size]) - 1)
    images = torch.empty(views, 3, side, side, device=meta, requires_grad=True)
    latents = teacher.vae.encode(images).latent_dist.mean
    twice = torch.empty(2 * views, *latents.shape[1:], device=meta)
    tokens = teacher.text_encoder.config.max_position_embeddings
    text = torch.empty(len(twice), tokens, width, device=meta)
    t, cameras = torch.empty(len(twice), device=meta), torch.empty(len(twice), 16, device=meta)

    def autoencoder() -> None:
        z = teacher.vae.encode(images * 2 - 1).latent_dist.mean
        torch.autograd.grad(z, images, torch.ones_like(z))

    @torch.no_grad()
    def unet() -> None:
        teacher.unet(twice, t, encoder_hidden_states=text, class_labels=cameras)

    return {"autoencoder": operations(autoencoder), "UNet": operations(unet)}


def count(size: str) -> str:
    """A table of the floating-point operations of a step, by phase and part."""
    config = settings(size)
    lines = ["| phase | part | TFLOP a step |", "|---|---|--:|"]
    whole = 0.0
    for phase in profiling.phases(config):
        pixels = torch.rand(phase.views, 3, phase.resolution, phase.resolution)
        parts = teacher_operations(size, phase.views)
        parts["VLM"] = vlm_operations(
            size, pixels, config.prompt, config.vlm.resolution if config.vlm else None
        )
        step = sum(parts.values())
        label = f"{phase.views} views of {phase.resolution} px, {phase.steps} steps"
        for part, flops in [*parts.items(), ("**all**", step)]:
            lines.append(f"| {label} | {part} | {flops / 1e12:.3f} |")
        whole += step * phase.steps
    lines += [
        "",
        f"The whole run: {whole / 1e15:.1f} PFLOP; in one hour that is "
        f"{whole / 3600 / 1e12:.1f} TFLOP/s. {versions(torch.device('cpu'))}",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    starting.done()
    try:
        process.usable_device(options.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if options.count:
        text = count(options.size)
        print(text)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "paper-scale-operations.md").write_text(text, encoding="utf-8")
        return
    measured = measure(options)
    text = table(measured)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "paper-scale.md").write_text(text, encoding="utf-8")
        (options.out / "paper-scale.json").write_text(
            json.dumps(measured, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
