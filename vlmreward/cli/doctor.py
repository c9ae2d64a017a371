"""The command ``vlmreward doctor MODEL``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from vlmreward.cli.arguments import text
from vlmreward.cli.common import (
    DONE,
    PARTLY,
    UsageError,
    add_model_options,
    check_device,
    command,
    load_reward,
    usage_errors,
    writable,
    write,
)
from vlmreward.cli.process import loading
from vlmreward.cli.versions import versions

if TYPE_CHECKING:
    from pathlib import Path

    from vlmreward.cli.common import Commands

__all__ = ["add"]

_ABOUT = """\
Check whether a vision-language model works as a differentiable reward. One line a check: OK, FAIL,
WARN (right, but to be looked at) or SKIP (could not be measured); what was measured; in brackets
what was expected; and below, after an arrow, what to do.

The checks compare pixels, tokens, positions and the answer with those of transformers alone, ask
in batches and alone, look at the probability that the answers have, follow the gradient to every
view and hold it against finite differences, and measure what a step costs.

With --meta no weight is read: config.json and the processor's files are enough for the layout of
the prompt, the tokens of an image, the parameters, and an estimate of what a step costs at full
size.
"""
_MORE = """\
examples:
  vlmreward doctor builtin/blocks
  vlmreward doctor Qwen/Qwen2.5-VL-7B-Instruct --device cuda --quick
  vlmreward doctor Qwen/Qwen2.5-VL-7B-Instruct --meta --gpu A100
  vlmreward doctor ./my-checkpoint --question "Is there {prompt}? Say yes or no." --answers yes no

exit codes:
  0  no check failed
  1  at least one failed
  2  bad usage, or the model cannot be loaded as a reward
"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = command(
        commands,
        "doctor",
        short="does a model work as a differentiable reward?",
        about=_ABOUT,
        more=_MORE,
    )
    parser.add_argument(
        "model", type=text, metavar="MODEL", help="hub id, local folder or builtin/blocks"
    )
    parser.add_argument(
        "--prompt",
        type=text,
        default="a red ball",
        help="for the question's {prompt}; default: a red ball",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="without finite differences, which need a copy of the model in double precision, and "
        "without the forecast of costs",
    )
    parser.add_argument(
        "--meta",
        action="store_true",
        help="describe the model without its weights, and estimate what a step costs",
    )
    parser.add_argument(
        "--gpu",
        type=text,
        metavar="NAME",
        help="with --meta, the GPU of the estimate: H200, H100 (default), A100, A100-40GB, L40S, "
        "L4, RTX4090 or RTX3090",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the findings, with all numbers and the versions of what is installed",
    )
    add_model_options(parser, pixel_mode="float", model=False)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine, print, and return the exit code."""
    file = writable("--json", options.json)
    if options.meta:
        return _describe(options, file)
    if options.gpu is not None:
        raise UsageError(
            "received --gpu without --meta; expected both: add --meta, or leave it out"
        )
    check_device(options)
    reward = load_reward(options)

    from vlmreward.doctor import checks, iter_checks, line, summary
    from vlmreward.utils.progress import progress_bar

    found = []
    total = len(checks(options.quick))
    with (
        usage_errors(TypeError, ValueError),
        progress_bar(total=total, unit="check", leave=False) as bar,
    ):
        for finding in iter_checks(
            reward, prompt=options.prompt, answers=tuple(options.answers), quick=options.quick
        ):
            found.append(finding)
            with bar.external_write_mode(file=sys.stdout):
                print(line(finding), flush=True)
            bar.update()
    print(summary(found))
    if file is not None:
        report = {
            "versions": versions(),
            "model": options.model,
            "question": reward.question.template,
            "findings": [finding.as_dict() for finding in found],
        }
        write(file, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return PARTLY if any(finding.status == "FAIL" for finding in found) else DONE


def _describe(options: argparse.Namespace, file: Path | None) -> int:
    """The report without weights, and the exit code."""
    for name, given in (("--device", options.device is not None), ("--quick", options.quick)):
        if given:
            raise UsageError(
                f"received {name} with --meta, which loads and measures nothing; expected one of "
                f"them: leave out {name}"
            )
    with loading():
        import torch

        from vlmreward.doctor import describe, report_lines

    with usage_errors(OSError, TypeError, ValueError):
        report = describe(
            options.model,
            question=options.question,
            prompt=options.prompt,
            answers=tuple(options.answers),
            gpu=options.gpu or "H100",
            dtype=getattr(torch, options.dtype) if options.dtype else None,
        )
    print("\n".join(report_lines(report)))
    if file is not None:
        out = {"model": options.model, **report.as_dict()}
        write(file, json.dumps(out, indent=2, ensure_ascii=False) + "\n")
    return DONE
