"""The answers of a judge in a file that only grows, so that a killed tournament goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path

from tournament.judges import Answer, Judge
from tournament.matches import Query
from tournament.pictures import Showing
from vlmreward.utils.progress import progress_bar

_NAMES = [field.name for field in fields(Answer)]


class AnswerLog:
    """Answers by the keys of their questions, a line of JSON each.

    A last line that a kill has cut is dropped.

    Args:
        path: the file, which need not exist.

    Raises:
        ValueError: a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                read = json.loads(line)
                self.answers[read["key"]] = Answer(**{name: read[name] for name in _NAMES})
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"line {number} of {path} is damaged; expected an answer; delete the line, and "
                    "its question is asked again"
                ) from None
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))

    def add(self, query: Query, answer: Answer) -> None:
        """Write an answer behind the others."""
        about = {
            "key": query.key,
            "criterion": query.criterion,
            "prompt_id": query.assets[0].prompt_id,
            "methods": [asset.method for asset in query.assets],
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about | asdict(answer)) + "\n")
        self.answers[query.key] = answer


def ask_all(
    judge: Judge, queries: Sequence[Query], log: AnswerLog, showing: Showing, *, jobs: int = 1
) -> None:
    """Ask the questions that the log has no answers to.

    Args:
        judge: the judge that is asked.
        queries: the questions, each once.
        log: gets each answer as soon as it is known.
        showing: presentation of the assets.
        jobs: number of simultaneous questions.

    Raises:
        OSError, ValueError: errors of the judge; answers until then are in the log.
    """

    def work(query: Query) -> Answer:
        if len(query.assets) == 2:
            return judge.ask(query.text, showing.pair(*query.assets)[None])
        return judge.ask(query.text, showing.frames(query.assets[0]))

    missing = [query for query in queries if query.key not in log.answers]
    done = len(queries) - len(missing)
    with (
        progress_bar(total=len(queries), initial=done, desc="asking", unit="question") as bar,
        _pool(jobs) as pool,
    ):
        waiting: dict[Future[Answer], Query] = {}
        left = iter(missing)
        # not all at once: a mistake or Ctrl-C ends after those that are on their way
        while True:
            for query in islice(left, 2 * jobs - len(waiting)):
                waiting[pool.submit(work, query)] = query
            if not waiting:
                return
            for future in _ended(waiting):
                log.add(waiting.pop(future), future.result())
                bar.update()


def _ended(waiting: Iterable[Future[Answer]]) -> list[Future[Answer]]:
    return list(wait(list(waiting), return_when=FIRST_COMPLETED).done)


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
