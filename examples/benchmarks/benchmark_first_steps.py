"""A stop-watch for newcomers: a fresh environment, the installation, a first reward, a first asset.

    python examples/benchmarks/benchmark_first_steps.py
    python examples/benchmarks/benchmark_first_steps.py --installer pip
    python examples/benchmarks/benchmark_first_steps.py --install vlmreward-0.2.0-py3-none-any.whl

It needs nothing but Python. Everything happens in a temporary folder, with nothing of this checkout
but what is installed from it, and without a cache of packages. It prints the date, the machine, the
versions, and for each step the seconds that passed and the seconds that processors worked for it:
where the first are many more, the step waited for the network, the disk, or other programs.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLERS = ("uv", "pip")
PICTURE = "from PIL import Image; Image.new('RGB', (224, 224), 'red').save('picture.png')"
ABOUT = """
import os, platform
from importlib.metadata import version
import torch
import machine
print(machine.hardware(torch.device("cpu")))
print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {platform.platform()}")
print(", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in
    ("vlmreward", "torch", "transformers", "diffusers"))]))
"""


@dataclass(frozen=True)
class Step:
    """A command of the newcomer, and its name in the table."""

    name: str
    words: Sequence[str]


@dataclass(frozen=True)
class Timing:
    """Duration of a step: wall-clock seconds and processor seconds."""

    name: str
    seconds: float
    cpu_seconds: float


class StepError(RuntimeError):
    """A step ended with an error; the message has the end of its output."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--install",
        type=Path,
        default=ROOT,
        metavar="PATH",
        help="the checkout (default) or a wheel, of which the extra [3d] is installed",
    )
    parser.add_argument(
        "--installer",
        choices=INSTALLERS,
        default=INSTALLERS[0],
        help="program that installs the package; default: %(default)s, which pip brings first",
    )
    parser.add_argument(
        "--prompt", default="a red cube on top of a blue sphere", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if not options.prompt.strip():
        parser.error(f"received --prompt {options.prompt!r}; expected some words")
    return options


def steps(install: Path, installer: str, prompt: str, environment: Path) -> list[Step]:
    """The steps from nothing to an asset."""
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    pip = [python, "-m", "pip", "install", "--no-cache-dir", "--quiet", "--progress-bar", "off"]
    uv = [str(programs / "uv"), "pip", "install", "--no-cache", "--quiet", "--python", python]
    package = f"{install.resolve()}[3d]"
    installation = [Step("installation", [*pip, package])]
    if installer == "uv":
        installation = [Step("installer", [*pip, "uv"]), Step("installation", [*uv, package])]
    score = [str(programs / "vlmreward"), "score", "picture.png", "--prompt", "a red cube"]
    return [
        Step("environment", [sys.executable, "-m", "venv", str(environment)]),
        *installation,
        Step("first picture", [python, "-c", PICTURE]),
        Step("first reward", score),
        Step("first asset", [str(programs / "vlm3d"), prompt]),
    ]


def timed(step: Step, folder: Path) -> Timing:
    """Run a step in a folder.

    Raises:
        StepError: the step ended with an error, or could not be started.
    """
    # what names the checkout would be used in place of what is installed
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    begin, used = time.monotonic(), os.times()
    try:
        done = subprocess.run(
            step.words, cwd=folder, env=variables, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise StepError(f"{step.name}: {error}") from None
    after = os.times()
    if done.returncode:
        end = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise StepError(f"{step.name} ended with exit code {done.returncode}: {end}")
    cpu = after.children_user + after.children_system - used.children_user - used.children_system
    return Timing(step.name, time.monotonic() - begin, cpu)


def table(timings: Sequence[Timing]) -> str:
    """Seconds of each step, and from the beginning to its end."""
    lines = [f"{'step':14} {'seconds':>8} {'of CPUs':>8} {'since the start':>16}"]
    passed = 0.0
    for timing in timings:
        passed += timing.seconds
        lines.append(
            f"{timing.name:14} {timing.seconds:8.0f} {timing.cpu_seconds:8.0f} {passed:16.0f}"
        )
    return "\n".join(lines)


def about(python: Path) -> str:
    """The machine, and the versions in the environment."""
    variables = os.environ | {"PYTHONPATH": str(ROOT / "examples")}
    done = subprocess.run(
        [python, "-c", ABOUT], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    wheel = options.install.suffix == ".whl" and options.install.exists()
    if not (wheel or (options.install / "pyproject.toml").exists()):
        where = f"received --install {options.install}"
        print(f"error: {where}; expected a checkout or a wheel", file=sys.stderr)
        return 2
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = folder / "environment"
        try:
            plan = steps(options.install, options.installer, options.prompt, environment)
            for step in plan:
                print(f"{step.name} ...", file=sys.stderr, flush=True)
                timings.append(timed(step, folder))
        except StepError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        made = next(folder.glob("outputs/*/report.html"), None)
        if made is None:
            print("error: the first asset has no report.html; expected one", file=sys.stderr)
            return 1
        print(datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
        print(about(Path(plan[-2].words[0]).parent / "python"))
        print(table(timings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
