"""Compare methods of text-to-3D by a judge, over folders of renders in GPTEval3D's layout:

    python examples/arena.py GPTEVAL3D --judge Qwen/Qwen2.5-VL-7B-Instruct --mode pairwise

Without a folder, three methods of the built-in world are drawn into the folder of the results
first. Writes arena.html, ratings.json, and comparisons.json and scores.json as GPTEval3D does.
Answers are kept in answers.jsonl: the same command again goes on where it was stopped. See
docs/arena.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import common
from tournament.answer_log import AnswerLog, ask_all
from tournament.demo import draw_tournament
from tournament.endpoint import EndpointJudge
from tournament.files import ANSWERS, claim, write_results, write_thumbnails
from tournament.judges import Judge, VLMJudge, require_mode
from tournament.layout import read_tournament
from tournament.matches import Asking, schedule
from tournament.page import save_page
from tournament.pictures import SHOWN, VIEWS, Showing
from tournament.questions import CRITERIA, MODES, questions
from tournament.results import comparisons, cost, position_bias, table

from vlmreward.cli.arguments import share

DRAWS = {"half": 0.5, "both": 1.0}
"""Wins that a draw gives to both methods."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "tournament", nargs="?", type=common.path, metavar="FOLDER", help="in GPTEval3D's layout"
    )
    asked = parser.add_argument_group("who is asked, and how")
    asked.add_argument(
        "--judge",
        type=common.text,
        default=common.BUILTIN,
        metavar="MODEL",
        help=f"hub id or folder of a VLM, or a model of the endpoint; default: {common.BUILTIN}",
    )
    asked.add_argument(
        "--mode",
        choices=MODES,
        required=True,
        help="ask about two assets in one picture, in both orders, or about each asset by itself",
    )
    asked.add_argument("--endpoint", type=common.text, metavar="URL", help="OpenAI-compatible")
    asked.add_argument(
        "--api-key-variable",
        type=common.text,
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="of the environment, with the endpoint's key; default: %(default)s",
    )
    asked.add_argument(
        "--max-tokens", type=common.positive, default=16, help="of an endpoint's answer"
    )
    asked.add_argument(
        "--timeout", type=common.above_zero, default=120.0, help="seconds; default: %(default)s"
    )
    asked.add_argument(
        "--jobs", type=common.positive, default=1, help="questions at a time; default: 1"
    )
    asked.add_argument(
        "--criteria",
        nargs="+",
        choices=CRITERIA,
        default=["alignment", "plausibility", "overall"],
        metavar="NAME",
        help=f"some of {', '.join(CRITERIA)}; default: alignment plausibility overall",
    )
    asked.add_argument(
        "--questions", type=common.path, metavar="FILE", help="JSON of your own, by criterion"
    )
    asked.add_argument(
        "--answers",
        nargs=2,
        type=common.text,
        metavar=("FIRST", "SECOND"),
        help="to your own questions; default: 1 2 for pairs, Yes No for single assets",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--views", type=int, choices=VIEWS, default=4, help="default: 4")
    shown.add_argument("--show", choices=SHOWN, default="rgb", help="default: rgb")
    shown.add_argument(
        "--size", type=common.positive, default=256, help="of a view in pixels; default: 256"
    )
    chosen = parser.add_argument_group("what is compared")
    chosen.add_argument("--methods", nargs="+", metavar="NAME", help="default: all")
    chosen.add_argument("--limit", type=common.positive, metavar="N", help="the first N prompts")
    chosen.add_argument(
        "--comparisons-per-pair",
        type=common.positive,
        metavar="N",
        help="prompts for each pair of methods, drawn by the seed; default: all",
    )
    rated = parser.add_argument_group("how results are counted")
    rated.add_argument(
        "--draw-margin",
        type=share,
        default=0.05,
        metavar="P",
        help="a probability within 1/2 +- P is a draw; default: %(default)s",
    )
    rated.add_argument(
        "--draws",
        choices=DRAWS,
        default="half",
        help="a draw is half a win, or a win for both as in GPTEval3D; default: half",
    )
    rated.add_argument("--anchor", metavar="METHOD", help="has the rating 1000; default: the mean")
    default = Path("outputs") / "arena"
    parser.add_argument(
        "--out", type=common.path, default=default, metavar="DIR", help=f"default: {default}"
    )
    parser.add_argument("--seed", type=common.natural, default=0, help="default: 0")
    parser.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    options = parser.parse_args(arguments)
    options.answers = tuple(options.answers or MODES[options.mode])
    if options.answers[0].lower() == options.answers[1].lower():
        parser.error(f"received --answers {' '.join(options.answers)}; expected two that differ")
    return options


def judge_of(options: argparse.Namespace) -> Judge:
    """The judge that the options name."""
    if options.endpoint:
        return EndpointJudge(
            options.endpoint,
            options.judge,
            options.answers,
            key_variable=options.api_key_variable,
            max_tokens=options.max_tokens,
            timeout=options.timeout,
        )
    require_mode(options.judge, options.mode)
    return VLMJudge(options.judge, options.answers, options.device)


def work(options: argparse.Namespace) -> list[Path]:
    asked = questions(options.criteria, options.mode, options.questions)
    folder = options.tournament or draw_tournament(options.out / "tournament")
    tournament = read_tournament(folder, methods=options.methods, limit=options.limit)
    if options.anchor is not None and options.anchor not in tournament.methods:
        raise ValueError(
            f"received --anchor {options.anchor!r}; expected one of {', '.join(tournament.methods)}"
        )
    matches = schedule(
        tournament, list(asked), per_pair=options.comparisons_per_pair, seed=options.seed
    )
    judge = judge_of(options)
    steered = tournament.steered_by(options.judge)
    showing = Showing(options.views, options.show, options.size)
    prompts = tournament.prompts
    asking = Asking(judge.identity, options.mode, options.answers, asked, showing, prompts)
    queries = list(asking.all_queries(matches))
    claim(options.out, asking)
    log = AnswerLog(options.out / ANSWERS)
    ask_all(judge, queries, log, showing, jobs=options.jobs)

    found, without = comparisons(asking, matches, log.answers, margin=options.draw_margin)
    tables = [
        table(
            name,
            tournament.methods,
            found,
            draw=DRAWS[options.draws],
            anchor=options.anchor,
            seed=options.seed,
            steered=steered,
        )
        for name in asked
    ]
    summary = {
        "judge": judge.identity,
        "mode": options.mode,
        "comparisons": len(found),
        "without_answer": len(without),
        "steered": steered,
        "position_bias": position_bias(found),
        "cost": cost([log.answers[query.key] for query in queries]),
        "draws": options.draws,
        "draw_margin": options.draw_margin,
    }
    files = write_results(options.out, found, tables, summary)
    page = save_page(
        options.out / "arena.html",
        tables=tables,
        found=found,
        questions={name: question.template for name, question in asked.items()},
        prompts=prompts,
        pictures=write_thumbnails(options.out, found, showing),
        summary=summary,
    )
    for one in tables:
        print(f"{one.criterion}:")
        values = one.ratings
        for i in one.ranking:
            ends = f"[{values.low[i]:.0f}, {values.high[i]:.0f}]"
            print(f"  {values.elo[i]:6.0f}  {ends:14}  {one.marked(i)}")
        if one.note:
            print(f"warning: {one.criterion}: {one.note}", file=sys.stderr)
    return [page, *files]


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
