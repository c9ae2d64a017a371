"""Time the differentiable image processor against Hugging Face's, forward and backward.

Both run in one process, in turns, on the same images, so that whatever else the machine does hits
both alike. Prints medians, the spread (quartiles) and the ratio of the medians.

    python examples/benchmark_processors.py [--threads 2] [--repeats 30] [--device cpu]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
import transformers
from transformers import Qwen2VLImageProcessor

from vlmreward import processors

SHAPES = [(8, 3, 64, 64), (8, 3, 256, 256), (1, 3, 1024, 1024)]


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"


def timed(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--repeats", type=int, default=30, help="timed rounds (default 30)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)

    hf = Qwen2VLImageProcessor()
    ours = {mode: processors.from_hf(hf, pixels=mode) for mode in processors.PIXELS}
    print(f"{datetime.date.today()}  {hardware(device)}")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"transformers {transformers.__version__}"
    )
    print("forward + backward, float32, milliseconds: median [quartiles]\n")
    print(f"{'images':>16} {'':>10} {'median':>9} {'quartiles':>19} {'HF / ours':>10}")

    for shape in SHAPES:
        images = torch.rand(shape, device=device, requires_grad=True)
        weights = torch.randn_like(ours["float"](images)["pixel_values"])

        def gradient(values: torch.Tensor, images=images, weights=weights) -> torch.Tensor:
            return torch.autograd.grad(values, images, weights)[0]

        steps: dict[str, Callable[[], torch.Tensor]] = {
            "HF": lambda images=images, gradient=gradient: gradient(
                hf(images, do_rescale=False, return_tensors="pt", device=device)["pixel_values"]
            )
        }
        for mode, processor in ours.items():
            steps[mode] = lambda images=images, gradient=gradient, processor=processor: gradient(
                processor(images)["pixel_values"]
            )
        error = (steps["float"]() - steps["HF"]()).norm() / steps["HF"]().norm()
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            for _ in range(3):
                step()
        for _ in range(args.repeats):
            for name, step in steps.items():
                times[name].append(timed(step, device))
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            low, _, high = statistics.quantiles(values, n=4)
            ratio = "" if name == "HF" else f"{medians['HF'] / medians[name]:.2f}x"
            print(
                f"{'x'.join(map(str, shape)):>16} {name:>10} {medians[name]:9.2f} "
                f"{f'[{low:.2f}, {high:.2f}]':>19} {ratio:>10}"
            )
        print(f"{'':>16} {'':>10} gradient, relative difference to HF: {error:.1e}\n")


if __name__ == "__main__":
    main()
