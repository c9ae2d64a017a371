"""Many prompts, an asset each, side by side on the machines of a Ray cluster (by default this one):

    python examples/generate_many.py prompts.txt --out outputs/many
    python examples/generate_many.py prompts.txt --gpus 1 -- --preset paper --device cuda

The file has one prompt a line; empty lines and lines with a # in front are left out. What follows
"--" goes to examples/text_to_3d.py. Each asset has a folder of its own. A task that fails or whose
worker dies goes on from its checkpoint, as often as --retries says; the same command again goes on
with what is not finished and leaves the rest alone. Finally it writes summary.json and
sheet.png, with a view of each asset.

Without --address Ray listens on this machine's loopback interface alone. --address names a running
cluster, "auto" the one this machine belongs to; its machines must share the folder and the
environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import text_to_3d

from vlmreward.cli.arguments import above_zero, natural, not_negative, positive, slug
from vlmreward.cli.arguments import path as some_path
from vlmreward.cli.arguments import text as some_text
from vlmreward.utils.output import write_atomically
from vlmreward.utils.progress import progress_bar

HERE = Path(__file__).parent
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Outcome:
    """Outcome of a prompt.

    Attributes:
        prompt: the prompt as it was given.
        folder: folder of the asset.
        status: "made", "there already", or "failed".
        seconds: duration of the last attempt.
        reason: cause of a failure, in words.
    """

    prompt: str
    folder: str
    status: str
    seconds: float = 0.0
    reason: str = ""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    rest: list[str] = []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, rest = arguments[:split], arguments[split + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", type=some_path, metavar="FILE", help="one prompt a line")
    default = Path("outputs") / "many"
    parser.add_argument(
        "--out", type=some_path, default=default, metavar="DIR", help=f"def.: {default}"
    )
    parser.add_argument("--workers", type=positive, help="at a time; default: by resources")
    parser.add_argument(
        "--cpus", type=above_zero, default=1.0, help="of a task; default: %(default)s"
    )
    parser.add_argument(
        "--gpus", type=not_negative, default=0.0, help="of a task; default: %(default)s"
    )
    parser.add_argument(
        "--retries", type=natural, default=2, help="of a task; default: %(default)s"
    )
    parser.add_argument(
        "--address", type=some_text, help="of a Ray cluster; default: one of its own, here"
    )
    options = parser.parse_args(arguments)
    options.device, options.words = "cpu", rest
    for word in rest:
        if word.partition("=")[0] in ("--out", "--resume", "--overwrite"):
            parser.error(f"{word} is behind --; expected it to be left to this script")
    if options.workers and options.address:
        parser.error(
            "received --workers with --address; expected --cpus and --gpus of a task, by which a "
            "running cluster counts; leave --workers out"
        )
    text_to_3d.parse(["a prompt", *rest])  # which ends here with what is wrong
    return options


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, each once, in order."""
    import common

    lines = common.read_lines(path)
    prompts = list(dict.fromkeys(line for line in lines if not line.startswith("#")))
    if not prompts:
        raise ValueError(f"{path} has no prompts; expected one a line")
    return prompts


def folders(prompts: Sequence[str], out: Path) -> list[Path]:
    """A folder for each prompt, the same at every call as long as the prompts stay the same."""
    names = [slug(prompt, 50) for prompt in prompts]
    return [out / f"{i:03d}-{name or 'asset'}" for i, name in enumerate(names)]


def finished(folder: Path) -> bool:
    """True if the run in a folder has ended and all its files are written."""
    try:
        return json.loads((folder / "state.json").read_bytes())["finished"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def make(module: str, prompt: str, folder: str, words: list[str]) -> float:
    """Make one asset, or go on with it; the work of a task.

    Returns:
        The seconds it took.

    Raises:
        RuntimeError: the script ended with an error, whose words are in log.txt.
    """
    begin, path = time.monotonic(), Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    begun = (path / "config.json").exists() or (path / "checkpoint.safetensors").exists()
    again = ["--resume"] if begun else []
    log = path / "log.txt"
    with log.open("a", encoding="utf-8") as file:
        kept, sys.stderr = sys.stderr, file
        try:
            code = importlib.import_module(module).main([prompt, "--out", folder, *again, *words])
        finally:
            sys.stderr = kept
    if code:
        lines = log.read_text(encoding="utf-8").strip().splitlines() or ["no message"]
        raise RuntimeError(lines[-1].rpartition("\r")[2])
    return time.monotonic() - begin


def make_all(
    prompts: Sequence[str],
    out: Path,
    words: Sequence[str],
    *,
    module: str = "text_to_3d",
    workers: int | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = 2,
    address: str | None = None,
) -> list[Outcome]:
    """Make an asset of each prompt by tasks of Ray.

    Args:
        prompts: distinct ones.
        out: parent of the assets' folders.
        words: further arguments of the script.
        module: the script, as a module beside this one, with a ``main(arguments) -> code``.
        workers: number of simultaneous tasks; by default as many as resources allow.
        cpus: processor cores of a task.
        gpus: GPUs of a task.
        retries: number of retries of a task that fails or whose worker dies.
        address: address of a cluster; a local one is started by default.

    Returns:
        Outcomes in the order of the prompts.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # a cluster that no other machine can join: by this Ray takes 127.0.0.1 for its address, and
        # its servers listen there alone; read when it is imported
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    environment = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    ray.init(
        address=address or "local",
        num_cpus=None if address or workers is None else max(1, round(workers * cpus)),
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": environment},
    )
    try:
        if address is None and ray.util.get_node_ip_address() not in LOOPBACK:
            raise OSError(
                "Ray listens on all interfaces, as it was imported before; expected this function "
                "to import it, or an address; start another process"
            )
        # a process a task: what one leaves behind is no other's trouble
        task = ray.remote(max_calls=1)(make).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=True
        )
        waiting: dict[Any, int] = {}
        outcomes: dict[int, Outcome] = {}
        for i, folder in enumerate(folders(prompts, out.resolve())):
            if finished(folder):
                outcomes[i] = Outcome(prompts[i], str(folder), "there already")
            else:
                handle = task.remote(module, prompts[i], str(folder), list(words))
                waiting[handle] = i
        with progress_bar(total=len(prompts), initial=len(outcomes), unit="asset") as bar:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                i = waiting.pop(done)
                folder = str(folders(prompts, out.resolve())[i])
                try:
                    outcomes[i] = Outcome(prompts[i], folder, "made", ray.get(done))
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    reason = str(cause).strip().splitlines()[-1]
                    outcomes[i] = Outcome(prompts[i], folder, "failed", reason=reason)
                    bar.write(f"{prompts[i]}: {reason}", file=sys.stderr)
                bar.update()
    finally:
        ray.shutdown()
    return [outcomes[i] for i in sorted(outcomes)]


def sheet(outcomes: Sequence[Outcome], path: Path) -> Path | None:
    """The views of each asset below its prompt, in rows of two."""
    shown = {o.prompt: Path(o.folder, "views.png") for o in outcomes if o.status != "failed"}
    shown = {prompt: file for prompt, file in shown.items() if file.exists()}
    if not shown:
        return None
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    rows = -(-len(shown) // 2)
    figure = Figure((14, 2.2 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, min(2, len(shown)), squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (prompt, file) in zip(axes, shown.items()):
        with Image.open(file) as image:
            axis.imshow(np.asarray(image.convert("RGB")))
        axis.set_title(prompt, fontsize=8, wrap=True)
    figure.savefig(path)
    return path


def work(options: argparse.Namespace) -> list[Path]:
    prompts = read_prompts(options.prompts)
    outcomes = make_all(
        prompts,
        options.out,
        options.words,
        workers=options.workers,
        cpus=options.cpus,
        gpus=options.gpus,
        retries=options.retries,
        address=options.address,
    )
    summary = options.out / "summary.json"
    write_atomically(summary, json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    picture = sheet(outcomes, options.out / "sheet.png")
    for outcome in outcomes:
        print(f"{outcome.status:13} {outcome.seconds:7.0f} s  {outcome.prompt}  {outcome.reason}")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(outcomes)} failed, see log.txt in their folders and {summary}; "
            "the same command again goes on with them"
        )
    return [summary, *([picture] if picture else [])]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    import common  # here, as it takes seconds, and each task imports this module

    return common.run(work, options)


if __name__ == "__main__":
    sys.exit(main())
