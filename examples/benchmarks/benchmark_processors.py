"""Time, memory and error of image preprocessing: ours, Hugging Face's, and two common substitutes.

For every family and size, all contenders run in one process, in turns, on the same image, so that
whatever else the machine does hits all alike. Prints the date, the hardware, the versions, medians
and quartiles; with --out also writes a table (processors.md), the measurements (processors.json)
and a plot (processors.png) there.

    python examples/benchmarks/benchmark_processors.py [--device cuda] [--out DIR]

The contenders:
    ours           vlmreward, pixel_mode="float"
    ours uint8     vlmreward, pixel_mode="uint8"
    HF torchvision transformers' torchvision backend, on floats
    HF PIL         transformers' PIL backend, on 8-bit images; it has no gradient
    kornia         kornia's antialiased resize, then our normalization and layout
    naive          torch's bilinear interpolation without antialiasing, then the same

The error is that of the values to Hugging Face's on the 8-bit image (in normalized units), and of
the gradient to the float64 one of the same family (relative).
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import starting  # isort: skip

import kornia
import torch
import torch.nn.functional as F
import torchvision
import transformers
from machine import hardware
from torchvision.transforms.functional import to_pil_image

from vlmreward import processors
from vlmreward.cli import process
from vlmreward.cli.arguments import above_zero, path, positive, threads
from vlmreward.models.families import members
from vlmreward.utils.progress import progress_bar

SHAPES = ((8, 3, 64, 64), (8, 3, 256, 256), (1, 3, 1024, 1024))
OURS, HF = "ours", "HF torchvision"
CONTENDERS = (OURS, "ours uint8", HF, "HF PIL", "kornia", "naive")

FAMILIES: dict[str, tuple[str, Mapping[str, object]]] = {
    # the last of those whose images are processed alike
    **{
        member.name: (member.image_processor, member.image_processor_options)
        for member in {
            (m.image_processor, repr(m.image_processor_options)): m for m in members().values()
        }.values()
    },
    "PaliGemma 448": ("SiglipImageProcessor", {"size": {"height": 448, "width": 448}}),
    "SigLIP 2": ("Siglip2ImageProcessor", {}),
}
"""Class, and what the checkpoints set otherwise."""


@dataclass(frozen=True)
class Measurement:
    """Milliseconds are medians, `total_ms` with the quartiles around it; memory is in MiB."""

    family: str
    images: str
    contender: str
    forward_ms: float
    backward_ms: float | None
    total_ms: tuple[float, float, float]
    memory_mib: float | None
    error_max: float
    error_mean: float
    gradient_error: float | None


def hf_processor(family: str, backend: str = "torchvision") -> Any:
    name, options = FAMILIES[family]
    kind = getattr(transformers, name)
    if backend == "pil":
        module = kind.__module__.replace(".image_processing_", ".image_processing_pil_")
        kind = getattr(importlib.import_module(module), f"{name}Pil")
    return kind(**options)


def with_resize(
    processor: processors.ImageProcessor, resize: Callable[..., torch.Tensor]
) -> processors.ImageProcessor:
    """The same processor around another resize; autograd finds the gradient."""
    other = copy.copy(processor)
    other.pixel_mode = "clamp"
    other.resample = resize
    return other


def contender(family: str, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Images -> pixel values."""
    hf = hf_processor(family, "pil" if name == "HF PIL" else "torchvision")
    if name == "HF PIL":
        return lambda pictures: _values(hf(pictures, return_tensors="pt"))
    if name == HF:
        return lambda x: _values(hf(x, do_rescale=False, return_tensors="pt", device=x.device))
    ours = processors.from_hf(hf, pixel_mode="uint8" if name == "ours uint8" else "float")
    filter = {"lanczos": "bicubic"}.get(ours.constants.filter, ours.constants.filter)
    if name == "kornia":
        ours = with_resize(
            ours,
            lambda x, size: kornia.geometry.resize(x, size, interpolation=filter, antialias=True),
        )
    elif name == "naive":
        ours = with_resize(ours, lambda x, size: F.interpolate(x, size, mode="bilinear"))
    return lambda x: ours(x)["pixel_values"]


def _values(out: Any) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out["pixel_values"]


def picture(shape: tuple[int, ...], device: torch.device, seed: int = 0) -> torch.Tensor:
    """Noise of a photograph's spectrum (amplitude 1/f), in whole 8-bit levels, in [0, 1]."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    fy, fx = torch.fft.fftfreq(shape[-2])[:, None], torch.fft.rfftfreq(shape[-1])
    f = (fx.square() + fy.square()).sqrt().clamp(min=1 / max(shape))
    x = torch.fft.irfft2(torch.fft.rfft2(noise) / f, s=shape[-2:])
    x = 0.5 + 0.25 * x / x.std(dim=(-2, -1), keepdim=True)
    return ((x.clamp(0, 1) * 255).round() / 255).to(device)


def peak_memory(
    family: str,
    name: str,
    shape: tuple[int, ...],
    out: tuple[int, ...],
    device: str,
    threads: int,
) -> float | None:
    """MiB that one forward and backward adds to the images and the gradient that comes in.

    For a process of its own, in which nothing was larger before. What libraries set up at their
    first call is there before, for every contender.
    """
    torch.set_num_threads(threads)
    where = torch.device(device)
    for first in (OURS, "ours uint8", HF):
        small = torch.rand(1, 3, 60, 70, device=where, requires_grad=True)
        torch.autograd.grad(contender("Qwen2.5-VL", first)(small).sum(), small)
    step = contender(family, name)
    x: Any = torch.rand(shape, device=where)
    if name == "HF PIL":
        x = [to_pil_image(image) for image in x.cpu()]
    else:
        x.requires_grad_()
    y = torch.rand(out, device=where)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = high_water(where)
    if before is None:
        return None
    values = step(x)
    if values.requires_grad:
        torch.autograd.grad(values, x, y)
    return (high_water(where) - before) / 2**20


def high_water(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def timed(step: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    out = step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return out, (time.perf_counter() - start) * 1e3


def exact_gradient(family: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    leaf = x.detach().double().requires_grad_()
    values = processors.from_hf(hf_processor(family))(leaf)["pixel_values"]
    return torch.autograd.grad(values, leaf, y.double())[0]


def measure(
    family: str, shape: tuple[int, ...], args: argparse.Namespace, pool: Any
) -> Iterator[Measurement]:
    device = torch.device(args.device)
    x = picture(shape, device)
    eight_bits = (x * 255).round().to(torch.uint8)
    hf = hf_processor(family)
    # on the CPU, because torch resizes 8-bit images there as HF's users do, in two rounded passes
    expected = _values(hf(eight_bits.cpu(), return_tensors="pt")).to(device)
    pictures = [to_pil_image(image) for image in eight_bits.cpu()]
    x.requires_grad_()
    y = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(device)
    truth = exact_gradient(family, x, y)

    steps = {name: contender(family, name) for name in CONTENDERS}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    errors = {}

    def once(name: str) -> None:
        inputs = pictures if name == "HF PIL" else x
        values, forward = timed(lambda: steps[name](inputs), device)
        grad, backward = None, 0.0
        if values.requires_grad:
            grad, backward = timed(lambda: torch.autograd.grad(values, x, y)[0], device)
        if name not in errors:  # the first round warms up
            difference = (values.detach().to(device) - expected).abs()
            wrong = None if grad is None else float((grad - truth).norm() / truth.norm())
            errors[name] = (float(difference.max()), float(difference.mean()), wrong)
            return
        times[name].append((forward, backward))

    start = time.perf_counter()
    while len(times[OURS]) < 3 or (
        len(times[OURS]) < args.rounds and time.perf_counter() - start < args.seconds
    ):
        for name in steps:
            once(name)

    for name in steps:
        forward, backward = zip(*times[name])
        low, middle, high = statistics.quantiles(map(sum, times[name]), n=4)
        error_max, error_mean, gradient_error = errors[name]
        memory = pool.apply(
            peak_memory, (family, name, shape, tuple(expected.shape), args.device, args.threads)
        )
        yield Measurement(
            family=family,
            images="x".join(map(str, shape)),
            contender=name,
            forward_ms=statistics.median(forward),
            backward_ms=None if gradient_error is None else statistics.median(backward),
            total_ms=(low, middle, high),
            memory_mib=memory,
            error_max=error_max,
            error_mean=error_mean,
            gradient_error=gradient_error,
        )


def heading(device: torch.device) -> str:
    return (
        f"{datetime.date.today()}, {hardware(device)}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, transformers {transformers.__version__}, kornia "
        f"{kornia.__version__}; float32, milliseconds"
    )


def speed(rows: list[Measurement], row: Measurement) -> str:
    """Time of HF's torchvision backend over that of this row."""
    rival = next(
        r for r in rows if (r.family, r.images, r.contender) == (row.family, row.images, HF)
    )
    if row.backward_ms is None:
        return f"{rival.forward_ms / row.forward_ms:.2f}x (forward)"
    return f"{rival.total_ms[1] / row.total_ms[1]:.2f}x"


def table(rows: list[Measurement]) -> str:
    lines = [
        "| family | images | | forward | backward | both [quartiles] | HF / this | peak MiB "
        "| error max (mean) | gradient error |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        low, middle, high = row.total_ms
        lines.append(
            f"| {row.family} | {row.images} | {row.contender} | {row.forward_ms:.1f} | "
            f"{'-' if row.backward_ms is None else f'{row.backward_ms:.1f}'} | "
            f"{middle:.1f} [{low:.1f}, {high:.1f}] | "
            f"{speed(rows, row)} | "
            f"{'-' if row.memory_mib is None else f'{row.memory_mib:.0f}'} | "
            f"{row.error_max:.1e} ({row.error_mean:.1e}) | "
            f"{'-' if row.gradient_error is None else f'{row.gradient_error:.1e}'} |"
        )
    return "\n".join(lines)


def plot(rows: list[Measurement], path: Path) -> None:
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(row.images for row in rows))
    families = list(dict.fromkeys(row.family for row in rows))
    figure = Figure(figsize=(5 * len(sizes), 9), layout="constrained")
    axes = figure.subplots(2, len(sizes), sharey=True, squeeze=False)
    height = 0.8 / len(CONTENDERS)
    for column, size in enumerate(sizes):
        for i, name in enumerate(CONTENDERS):
            mine = {r.family: r for r in rows if (r.images, r.contender) == (size, name)}
            where = [k + (i - (len(CONTENDERS) - 1) / 2) * height for k in range(len(families))]
            label = f"{name} (forward only)" if name == "HF PIL" else name
            axes[0, column].barh(
                where, [mine[f].total_ms[1] for f in families], height, label=label
            )
            # a bar of length zero has no place on a logarithmic axis
            axes[1, column].barh(
                where, [max(mine[f].error_mean, 1e-9) for f in families], height, label=label
            )
        axes[0, column].set(title=size, xscale="log", xlabel="forward + backward [ms]")
        axes[1, column].set(
            xscale="log", xlabel="mean |difference| to HF on 8 bits [normalized units]"
        )
    for row in axes:
        row[0].set_yticks(range(len(families)), families)
    axes[0, 0].invert_yaxis()  # of all, they are shared
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=threads, default=2, help="CPU threads (default 2)")
    parser.add_argument("--rounds", type=positive, default=30, help="timed rounds (default 30)")
    parser.add_argument(
        "--seconds", type=above_zero, default=20.0, help="for a cell, after 3 rounds (default 20)"
    )
    parser.add_argument(
        "--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, metavar="FAMILY"
    )
    parser.add_argument("--out", type=path, help="folder for the table, the numbers and the plot")
    args = parser.parse_args()
    starting.done()
    try:
        process.usable_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)

    # Children that have imported everything but computed nothing; each measures one peak
    context = multiprocessing.get_context("forkserver" if device.type == "cpu" else "spawn")
    if device.type == "cpu":
        context.set_forkserver_preload([__name__, "kornia", "torchvision", "transformers"])
        # glibc gives large blocks back at once, so that the peak is that of what is alive
        os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)
    rows: list[Measurement] = []
    with context.Pool(1, maxtasksperchild=1) as pool:
        torch.set_num_threads(args.threads)
        cells = [(family, shape) for family in args.families for shape in SHAPES]
        for family, shape in progress_bar(cells, desc="measuring", unit="cell"):
            rows += measure(family, shape, args, pool)
    text = f"{heading(device)}\n\n{table(rows)}\n"
    print(text)
    if args.out:
        (args.out / "processors.md").write_text(text, encoding="utf-8")
        (args.out / "processors.json").write_text(
            json.dumps({"run": heading(device), "rows": [asdict(row) for row in rows]}, indent=1)
        )
        plot(rows, args.out / "processors.png")


if __name__ == "__main__":
    main()
