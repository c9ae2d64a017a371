"""Make a 3D asset from a text, on a laptop:

    python examples/text_to_3d.py "a red cube on top of a blue sphere"

The folder of the run gets report.html, which shows all of it, and config.json, metrics.jsonl,
views.png, turntable.mp4, mesh.glb, mesh_textured.glb, reward.png and the checkpoint; with --field
gaussians, splats.ply in place of the meshes. Ctrl-C stops it; the same command with --resume goes
on.
"""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

from vlmreward.cli import process
from vlmreward.cli.arguments import (
    above_zero,
    natural,
    path,
    port,
    positive,
    share,
    slug,
    text,
    threads,
)
from vlmreward_3d.config import (
    DENSIFICATIONS,
    FIELDS,
    OBJECTIVES,
    PRECISIONS,
    RANKINGS,
    NoiseSelectionConfig,
)
from vlmreward_3d.presets import PRESETS
from vlmreward_3d.schedule import Schedule

QUESTIONS = {
    "A": "paper/A",
    "B": "paper/B",
    "selected": "paper/selected",
    "yes-no": "yes-no",
}
MESHES = ("glb", "texture", "obj", "ply")
ABOUT_THE_VLM = (
    *("vlm", "single_view", "question", "no_geometry_question", "separate_questions"),
    *("vlm_interval", "vlm_cache_gradient", "vlm_grad_ratio", "vlm_device", "vlm_resolution"),
    *("vlm_max_grad_ratio", "vlm_transformations", "noise_candidates", "noise_ranking"),
    *("vlm_views_per_question", "vlm_objective", "vlm_weight"),
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
        "--export",
        type=mesh_kinds,
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
        "--rule",
        metavar="NAME",
        help="distillation rule, such as x0, sds or ism; see docs/rules.md",
    )
    parser.add_argument(
        "--perp-neg",
        action="store_true",
        help="tell a denoiser without cameras which side a view shows, and which it does not",
    )
    parser.add_argument(
        "--t-max-end",
        type=share,
        metavar="LEVEL",
        help="highest noise level at the end, in [0, 1], to which the preset's falls: the lower it "
        "is, the less the denoiser takes back what the VLM has changed",
    )
    parser.add_argument(
        "--vlm",
        type=text,
        metavar="MODEL",
        help="a folder, hub id or short name: paligemma, idefics, ...",
    )
    parser.add_argument(
        "--field",
        choices=FIELDS,
        help="dense grids, hash tables for detail, or Gaussians; default: the preset's, which is "
        "dense grids in all but dreamgaussian",
    )
    growth = parser.add_argument_group("growth, with --field gaussians")
    growth.add_argument(
        "--grow",
        choices=DENSIFICATIONS,
        help="clone, split and remove Gaussians in the run, by settings of this name",
    )
    growth.add_argument(
        "--max-gaussians", type=positive, metavar="N", help="their largest number; see --grow"
    )
    ablations = parser.add_argument_group("the paper's ablations")
    ablations.add_argument("--no-vlm", action="store_true", help="score distillation alone")
    ablations.add_argument("--single-view", action="store_true", help="show the VLM one view")
    question = ablations.add_mutually_exclusive_group()
    question.add_argument(
        "--question",
        choices=QUESTIONS,
        help="one of the paper's (default: selected), or in short words for the content alone",
    )
    question.add_argument(
        "--no-geometry-question", action="store_true", help="ask about the content alone"
    )
    question.add_argument(
        "--separate-questions", action="store_true", help="content and geometry, one by one"
    )
    asking = parser.add_argument_group("how often the VLM is asked, and how much it weighs")
    asking.add_argument("--vlm-interval", type=positive, metavar="K", help="ask at every K-th step")
    asking.add_argument(
        "--vlm-cache-gradient",
        action="store_true",
        help="follow its last gradient at the steps in between",
    )
    ratio = asking.add_mutually_exclusive_group()
    ratio.add_argument(
        "--vlm-max-grad-ratio",
        type=above_zero,
        metavar="B",
        help="keep its gradient within B times the norm of the denoiser's",
    )
    ratio.add_argument(
        "--vlm-grad-ratio",
        type=above_zero,
        metavar="B",
        help="choose lambda so that its gradient has B times the norm of the denoiser's",
    )
    asking.add_argument(
        "--vlm-weight",
        type=above_zero,
        metavar="LAMBDA",
        help="one lambda for the whole run; default: the preset's schedule",
    )
    asking.add_argument(
        "--vlm-objective",
        choices=OBJECTIVES,
        help="what is increased: log-odds (default, as in the paper), or log-probability, which "
        "falls silent where the answer is Yes",
    )
    asking.add_argument(
        "--vlm-resolution", type=positive, metavar="N", help="side in pixels of what it is shown"
    )
    asking.add_argument(
        "--vlm-transformations",
        type=positive,
        metavar="N",
        help="average it over N random transformations of the views",
    )
    asking.add_argument(
        "--vlm-views-per-question",
        type=positive,
        metavar="N",
        help="ask about N views at a time, and take the mean; default: about all together",
    )
    asking.add_argument(
        "--noise-candidates",
        type=positive,
        metavar="K",
        help="draw K noises a step, and go on with the one whose prediction it likes best",
    )
    asking.add_argument(
        "--noise-ranking",
        choices=RANKINGS,
        help="how K noises are weighed; default: the best alone; see docs/rules.md",
    )
    parser.add_argument(
        "--no-collapse-detection",
        action="store_true",
        help="let views be empty, full or foggy",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="measure a few steps, say what the run takes, and end",
    )
    parser.add_argument(
        "--viewer-port",
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
        "--rays-per-chunk", type=positive, metavar="N", help="rays at a time; see --dry-run"
    )
    options = parser.parse_args(arguments)
    name = slug(options.prompt)
    if not name and options.out is None:
        parser.error(f"received the prompt {options.prompt!r}; expected some words; or pass --out")
    options.out = options.out or Path("outputs") / name
    refuse_without_effect(parser, options)
    options.export = options.export or ("glb", "texture")
    return options


def refuse_without_effect(parser, options) -> None:
    """End with an error if an option would have no effect."""
    without = "--no-vlm" if options.no_vlm else f"--preset {options.preset}"
    if options.no_vlm or not PRESETS[options.preset].uses_vlm:
        for name in ABOUT_THE_VLM:
            if getattr(options, name):
                parser.error(
                    f"received --{name.replace('_', '-')}, which means nothing with {without}; "
                    "expected a run that asks a VLM; leave one of them out"
                )
    if options.vlm_cache_gradient and (options.vlm_interval or 1) == 1:
        parser.error(
            "received --vlm-cache-gradient, but the VLM is asked at every step; expected "
            "--vlm-interval K with K > 1; add it, or leave --vlm-cache-gradient out"
        )
    if options.vlm_weight and options.vlm_grad_ratio:
        parser.error(
            "received --vlm-weight with --vlm-grad-ratio, which chooses lambda at every step; "
            "expected one of the two; --vlm-max-grad-ratio would limit it"
        )
    if options.noise_ranking and not options.noise_candidates:
        parser.error(
            "received --noise-ranking without --noise-candidates K, the number of noises that are "
            "ranked; expected both"
        )
    options.field = options.field or next(iter(PRESETS[options.preset].fields))
    if options.grow and options.field != "gaussians":
        parser.error(
            f"received --grow with --field {options.field}, which does not grow; expected --field "
            "gaussians; add it, or leave --grow out"
        )
    if options.grow and options.vlm_cache_gradient:
        parser.error(
            "received --vlm-cache-gradient with --grow, which changes the shapes of the parameters "
            "that gradients are kept at; expected one of the two; leave one of them out"
        )
    if options.max_gaussians and not options.grow:
        parser.error(
            "received --max-gaussians without --grow; expected both, as the number of Gaussians "
            "stays the same without it"
        )
    if options.field == "gaussians":
        if options.export:
            parser.error(
                "received --export with --field gaussians, which have no mesh; expected one of the "
                "two; leave --export out: splats.ply is written"
            )
        if options.rays_per_chunk:
            parser.error(
                "received --rays-per-chunk with --field gaussians, which are not sampled along "
                "rays; expected one of the two; leave --rays-per-chunk out"
            )


def mesh_kinds(text: str) -> tuple[str, ...]:
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
            from vlmreward_3d.training.trainer import TrainingInterrupted
            from vlmreward_3d.vlm3d import DivergenceError
    except ImportError as error:
        print(f"error: {error}; expected it: pip install 'vlmreward[3d]'", file=sys.stderr)
        return 2
    try:
        files = work(options)
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        said = str(error) or "stopped"
        if (options.out / "config.json").exists() and not options.dry_run:
            words = [w for w in arguments or sys.argv[1:] if w not in ("--resume", "--overwrite")]
            said += f"; to go on: {shlex.join(['python', sys.argv[0], *words, '--resume'])}"
        print(said, file=sys.stderr)
        return process.INTERRUPTED
    except (DivergenceError, ValueError, OSError, ImportError) as error:
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
    """Make the asset, and return its files; or print what the run takes."""
    import torch

    from vlmreward_3d.export.run_artifacts import export_all
    from vlmreward_3d.training.run_directory import RunDirectory
    from vlmreward_3d.training.trainer import train
    from vlmreward_3d.vlm3d import VLM3D

    process.usable_device(options.device)
    if options.vlm_device is not None:
        process.usable_device(options.vlm_device, "--vlm-device")
    if options.threads:
        torch.set_num_threads(options.threads)
    config = configuration(options)
    if options.dry_run:
        print(measured(options, config))
        return []
    folder = RunDirectory(options.out, config, resume=options.resume, overwrite=options.overwrite)
    with folder.held():
        with watching(options.viewer_port) as watch:
            guidances = load_guidances(config, options)
            model = VLM3D(config, guidances, device=options.device)
            train(model, folder, checkpoint_every=options.checkpoint_every, watch=watch)
        files = export_all(
            folder.path,
            model,
            folder.metrics(),
            meshes=options.export,
            seconds=folder.seconds or None,
            notes=folder.notes,
            progress=True,
        )
        folder.finish()
    return files


def configuration(options):
    """The settings of the run."""
    config = PRESETS[options.preset](
        options.prompt,
        steps=options.steps,
        seed=options.seed,
        field=options.field,
        denoiser=options.denoiser,
        vlm=None if options.no_vlm else options.vlm or "default",
    )
    return config.replace(changes(options, config))


def measured(options, config) -> str:
    """The time and memory of the run's phases, as a table."""
    from vlmreward_3d.training import profiling

    guidances = load_guidances(config, options)
    said = ""
    in_chunks = config.flat().get("field.rays.rays_per_chunk") is not None
    if in_chunks and not options.rays_per_chunk:
        best = profiling.best_chunk(profiling.measure_chunks(config, device=options.device))
        config = config.replace({"field.rays.rays_per_chunk": best.rays})
        said = f"with --rays-per-chunk {best.rays}:\n"
    return said + profiling.table(profiling.measure(config, guidances, device=options.device))


@contextlib.contextmanager
def watching(port):
    """The function that `train` calls after each step, if any."""
    if port is None:
        yield None
        return
    from vlmreward_3d.training.viewer import LiveView

    with LiveView(port) as view:
        print(f"http://127.0.0.1:{view.port}", file=sys.stderr)
        yield view


def load_guidances(config, options):
    from vlmreward_3d.guidance import loading

    vlm = [] if config.vlm is None else [config.vlm.model]
    names = dict.fromkeys([*vlm, config.score_distillation.denoiser])
    print(f"loading {' and '.join(names)} ...", file=sys.stderr)
    return loading.load_guidances(config, device=options.device, vlm_device=options.vlm_device)


def changes(options, config):
    """The settings in which the options differ from a configuration, by their dotted names."""
    asked = {
        "score_distillation.rule": distillation_rule(options),
        "score_distillation.view_prompts": options.perp_neg,
        "score_distillation.perp_neg": options.perp_neg,
        "score_distillation.precision": options.denoiser_precision,
        "vlm.weighting.interval": options.vlm_interval,
        "vlm.weighting.cache_gradient": options.vlm_cache_gradient,
        "vlm.weighting.grad_ratio": options.vlm_grad_ratio,
        "vlm.weighting.max_grad_ratio": options.vlm_max_grad_ratio,
        "vlm.n_transformations": options.vlm_transformations,
        "vlm.objective": options.vlm_objective,
        "vlm.views_per_question": options.vlm_views_per_question,
        "vlm.weighting.n_views": 1 if options.single_view else None,
        "vlm.resolution": options.vlm_resolution,
        "vlm.question": question(options),
        "field.rays.rays_per_chunk": options.rays_per_chunk,
        "field.densification": DENSIFICATIONS.get(options.grow),
        "field.densification.max_gaussians": options.max_gaussians,
    }
    changed = {name: value for name, value in asked.items() if value}
    if options.t_max_end is not None:
        levels = config.score_distillation.t_max
        changed["score_distillation.t_max"] = levels.ending(options.t_max_end)
    if options.vlm_weight:
        changed["vlm.weighting.weight"] = Schedule.constant(options.vlm_weight)
    if options.vlm_grad_ratio:
        changed["vlm.weighting.max_grad_ratio"] = None
    if options.noise_candidates:
        ranking = options.noise_ranking or "best"
        selection = NoiseSelectionConfig(n_candidates=options.noise_candidates, ranking=ranking)
        changed["score_distillation.selection"] = selection
    if options.no_collapse_detection:
        changed["recovery.patience"] = None
    return changed


def distillation_rule(options):
    """The name of the rule, refused before models are loaded; None for the preset's."""
    from vlmreward_3d.guidance.rules import RULES

    if options.rule is not None and options.rule not in RULES:
        raise ValueError(f"--rule: received {options.rule!r}; expected one of {', '.join(RULES)}")
    return options.rule


def question(options):
    """The name of the question, or the names of two questions; None for the preset's."""
    if options.separate_questions:
        return ("paper/content", "paper/geometry")
    if options.no_geometry_question:
        return "paper/content"
    return options.question and QUESTIONS[options.question]


if __name__ == "__main__":
    sys.exit(main())
