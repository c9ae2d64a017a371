"""Make a 3D asset from a text, on a laptop:

    python examples/text_to_3d.py "a red cube on top of a blue sphere"

The folder of the run gets report.html, which shows all of it, and config.json, metrics.jsonl,
views.png, turntable.mp4, mesh.glb, mesh_textured.glb, reward.png and the checkpoint; with --field
splats, splats.ply in place of the meshes. Ctrl-C stops it; the same command with --resume goes on.
"""

import argparse
import contextlib
import dataclasses
import re
import shlex
import sys
from pathlib import Path

from vlmreward.cli import process
from vlmreward.cli.arguments import above_zero, natural, path, port, positive, text, threads

PRESETS = ("blocks", "paper", "release", "mvdream", "dreamfusion")
TEMPLATES = ("A", "B", "selected")
PRECISIONS = ("float32", "autocast", "bfloat16", "float16")
MESHES = ("glb", "texture", "obj", "ply")
WITHOUT_VLM = ("mvdream", "dreamfusion")
ABOUT_THE_VLM = (
    *("vlm", "single_view", "prompt_template", "no_geometry_query", "separate_queries"),
    *("vlm_every", "vlm_reuse", "vlm_balance", "vlm_device", "vlm_resolution"),
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Text to 3D with a VLM's reward (VLM3D).")
    parser.add_argument("prompt", type=text, metavar="PROMPT", help='for example "a red cube"')
    parser.add_argument("--preset", choices=PRESETS, default="blocks", help="default: blocks")
    parser.add_argument("--steps", type=positive, help="length of the run; default: the preset's")
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--out", type=path, metavar="DIR", help="default: outputs/<prompt>")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in DIR")
    parser.add_argument(
        "--mesh",
        type=meshes,
        metavar="KINDS",
        help=f"some of {','.join(MESHES)}; default: glb,texture",
    )
    parser.add_argument("--denoiser", type=text, metavar="MODEL", help="a file, folder or hub id")
    parser.add_argument(
        "--denoiser-precision",
        choices=PRECISIONS,
        help="how one of latents computes; default: autocast on a GPU, float32 elsewhere",
    )
    parser.add_argument(
        "--vlm",
        type=text,
        metavar="MODEL",
        help="a folder, hub id or short name: paligemma, idefics, ...",
    )
    parser.add_argument(
        "--field",
        choices=("pyramid", "hash", "splats"),
        help="dense grids, hash tables for detail, or Gaussian splats",
    )
    ablations = parser.add_argument_group("the paper's ablations")
    ablations.add_argument("--no-vlm", action="store_true", help="score distillation alone")
    ablations.add_argument("--single-view", action="store_true", help="show the VLM one view")
    question = ablations.add_mutually_exclusive_group()
    question.add_argument("--prompt-template", choices=TEMPLATES, help="default: selected")
    question.add_argument(
        "--no-geometry-query", action="store_true", help="ask about the content alone"
    )
    question.add_argument(
        "--separate-queries", action="store_true", help="content and geometry, one by one"
    )
    asking = parser.add_argument_group("how often the VLM is asked, and how much it weighs")
    asking.add_argument("--vlm-every", type=positive, metavar="K", help="ask at every K-th step")
    asking.add_argument(
        "--vlm-reuse", action="store_true", help="follow its last gradient at the steps in between"
    )
    asking.add_argument(
        "--vlm-balance",
        type=above_zero,
        metavar="B",
        help="choose lambda so that its gradient has B times the norm of the denoiser's",
    )
    asking.add_argument(
        "--vlm-resolution", type=positive, metavar="N", help="side in pixels of what it is shown"
    )
    parser.add_argument(
        "--no-watchdog", action="store_true", help="let views be empty, full or foggy"
    )
    parser.add_argument(
        "--plan", action="store_true", help="measure a few steps, say what the run takes, and end"
    )
    parser.add_argument(
        "--view",
        type=port,
        nargs="?",
        const=8080,
        metavar="PORT",
        help="watch the run in a browser; default port: 8080",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        metavar="N",
        help="steps between checkpoints; default: 50, of short runs a fifth",
    )
    parser.add_argument("--threads", type=threads, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    parser.add_argument(
        "--vlm-device", metavar="DEVICE", help="the VLM's own, where it works beside the denoiser"
    )
    parser.add_argument(
        "--rays-per-chunk", type=positive, metavar="N", help="rays at a time; see --plan"
    )
    options = parser.parse_args(arguments)
    slug = re.sub(r"[^a-z0-9]+", "-", options.prompt.lower()).strip("-")[:60]
    if not slug and options.out is None:
        parser.error(f"received the prompt {options.prompt!r}; expected some words; or pass --out")
    options.out = options.out or Path("outputs") / slug
    complain_about_what_means_nothing(parser, options)
    options.mesh = options.mesh or ("glb", "texture")
    return options


def complain_about_what_means_nothing(parser, options) -> None:
    without = "--no-vlm" if options.no_vlm else f"--preset {options.preset}"
    if options.no_vlm or options.preset in WITHOUT_VLM:
        for name in ABOUT_THE_VLM:
            if getattr(options, name):
                parser.error(
                    f"received --{name.replace('_', '-')}, which means nothing with {without}; "
                    "expected a run that asks a VLM; leave one of them out"
                )
    if options.vlm_reuse and (options.vlm_every or 1) == 1:
        parser.error(
            "received --vlm-reuse, but the VLM is asked at every step; expected --vlm-every K "
            "with K > 1; add it, or leave --vlm-reuse out"
        )
    if options.field == "splats" and options.mesh:
        parser.error(
            "received --mesh with --field splats, which have no mesh; expected one of the two; "
            "leave --mesh out: splats.ply is written"
        )


def meshes(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    for kind in kinds:
        if kind not in MESHES:
            raise argparse.ArgumentTypeError(
                f"received {kind!r}; expected some of {', '.join(MESHES)}, joined by commas"
            )
    return kinds


@process.speaking()
def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        # after parsing, so that --help and mistakes answer at once
        with process.loading():
            from vlmreward_3d.train import Stopped
            from vlmreward_3d.vlm3d import Diverged
    except ImportError as error:
        print(f"error: {error}; expected it: pip install 'vlmreward[3d]'", file=sys.stderr)
        return 2
    try:
        files = work(options)
    except (Stopped, KeyboardInterrupt) as error:
        said = str(error) or "stopped"
        if (options.out / "config.json").exists() and not options.plan:
            words = [w for w in arguments or sys.argv[1:] if w not in ("--resume", "--overwrite")]
            said += f"; to go on: {shlex.join(['python', sys.argv[0], *words, '--resume'])}"
        print(said, file=sys.stderr)
        return process.INTERRUPTED
    except (Diverged, ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not process.out_of_memory(error):
            raise
        print("error: no memory left; expected more of it; see --rays-per-chunk", file=sys.stderr)
        return 2
    for file in files:
        print(file)
    return 0


def work(options):
    """Make the asset, and return its files; or print the plan."""
    import torch

    from vlmreward_3d import presets
    from vlmreward_3d.export import export_all
    from vlmreward_3d.train import RunFolder, train
    from vlmreward_3d.vlm3d import VLM3D

    process.usable_device(options.device)
    if options.vlm_device is not None:
        process.usable_device(options.vlm_device, "--vlm-device")
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = {"seed": options.seed}
    if options.no_vlm:
        chosen["with_vlm"] = False
    if options.steps:
        chosen["steps"] = options.steps
    config = getattr(presets, options.preset)(options.prompt, **chosen)
    if options.field == "splats":
        config = presets.with_splats(config)
    config = dataclasses.replace(config, **changes(options, config))
    if options.plan:
        print(planned(options, config))
        return []
    folder = RunFolder(options.out, config, resume=options.resume, overwrite=options.overwrite)
    with folder.held():
        with watching(options.view) as watch:
            denoiser, reward = load_teachers(config, options)
            model = VLM3D(config, denoiser, reward, **placing(options))
            train(model, folder, checkpoint_every=options.checkpoint_every, watch=watch)
        files = export_all(
            folder.path,
            model,
            folder.metrics(),
            meshes=options.mesh,
            seconds=folder.seconds or None,
            notes=folder.notes,
            progress=True,
        )
        folder.finish()
    return files


def planned(options, config) -> str:
    """What the run takes, as a table."""
    from vlmreward_3d import plan

    teachers = load_teachers(config, options)
    said = ""
    if config.rays_per_chunk is not None and not options.rays_per_chunk:
        best = plan.best_chunk(plan.measure_chunks(config, device=options.device))
        config = dataclasses.replace(config, rays_per_chunk=best.rays)
        said = f"with --rays-per-chunk {best.rays}:\n"
    return said + plan.table(plan.measure(config, *teachers, **placing(options)))


@contextlib.contextmanager
def watching(port):
    """What `train` calls after each step, if anything."""
    if port is None:
        yield None
        return
    from vlmreward_3d.monitor.view import LiveView

    with LiveView(port) as view:
        print(f"http://127.0.0.1:{view.port}", file=sys.stderr)
        yield view


def load_teachers(config, options):
    from vlmreward_3d import load

    both = config.denoiser if config.vlm is None else f"{config.vlm} and {config.denoiser}"
    print(f"loading {both if config.vlm != config.denoiser else config.vlm} ...", file=sys.stderr)
    return load.load_teachers(config, device=options.device, vlm_device=options.vlm_device)


def placing(options):
    return {"device": options.device, "concurrent": options.vlm_device is not None}


def changes(options, config):
    """What the options ask for besides the preset."""
    changed = {}
    if options.denoiser:
        changed["denoiser"] = options.denoiser
    if options.denoiser_precision:
        changed["denoiser_precision"] = options.denoiser_precision
    if options.vlm:
        from vlmreward_3d.presets import VLMS

        changed["vlm"] = VLMS.get(options.vlm, options.vlm)
    if options.no_watchdog:
        changed["patience"] = None
    if options.field:
        changed["field"] = options.field
    if options.vlm_every:
        changed["vlm_every"] = options.vlm_every
    if options.vlm_reuse:
        changed["vlm_reuse"] = True
    if options.vlm_resolution:
        changed["vlm_resolution"] = options.vlm_resolution
    if options.vlm_balance:
        changed |= {"vlm_balance": options.vlm_balance, "vlm_limit": None}
    if options.rays_per_chunk:
        changed["rays_per_chunk"] = options.rays_per_chunk
    if options.single_view:
        changed["vlm_views"] = 1
    if options.prompt_template:
        changed["vlm_prompt"] = f"paper/{options.prompt_template}"
    if options.no_geometry_query:
        changed["vlm_prompt"] = "paper/content"
    if options.separate_queries:
        changed["vlm_prompt"] = ("paper/content", "paper/geometry")
    return changed


if __name__ == "__main__":
    sys.exit(main())
