"""A judge behind an HTTP endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tournament.judges import Answer
from tournament.pictures import png

SURE = 10.0
"""Log-odds of an answer that is read from the text, where the endpoint gives no probabilities."""
_TOP = 20
_AGAIN = (408, 409, 429, 500, 502, 503, 504)
_ADAPTED = ("logprobs", "max_tokens", "temperature")
"""Fields that some servers refuse, in words of their messages."""


class EndpointJudge:
    """A model that an OpenAI-compatible server runs.

    The odds come from the log-probabilities of the first token if the server returns them;
    otherwise the answer is looked for in the text. The key is read from the environment at each
    question and neither kept nor shown.

    Args:
        url: URL without ``/chat/completions``, such as ``http://127.0.0.1:8000/v1``.
        model: the model's name at the server.
        answers: the two answers.
        key_variable: name of the environment variable that holds the key; it may be unset.
        max_tokens: most tokens of an answer.
        timeout: seconds until an answer is given up.
        tries: number of attempts at a question while the server is busy or out of reach.
        pause: seconds before the second try; twice as long before each further one.

    Raises:
        ValueError: the URL is not one of HTTP.
    """

    def __init__(
        self,
        url: str,
        model: str,
        answers: tuple[str, str],
        *,
        key_variable: str = "OPENAI_API_KEY",
        max_tokens: int = 16,
        timeout: float = 120.0,
        tries: int = 4,
        pause: float = 1.0,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(
                f"received --endpoint {url!r}; expected a URL such as http://127.0.0.1:8000/v1"
            )
        if "@" in parts.netloc or parts.query:
            raise ValueError(
                "received an --endpoint with a user, a password or a query, which would be "
                "written into the results; expected a plain URL, and the key in the environment"
            )
        self.url = url.rstrip("/")
        self.model, self.answers, self.key_variable = model, answers, key_variable
        self.max_tokens, self.timeout = max_tokens, timeout
        self.tries, self.pause = tries, pause
        self.refused: frozenset[str] = frozenset()
        """Fields that the server has refused."""

    @property
    def identity(self) -> dict[str, str]:
        return {"kind": "endpoint", "url": self.url, "name": self.model}

    def ask(self, question: str, images: Tensor) -> Answer:
        begin = time.perf_counter()
        reply = self._complete(question, [png(image) for image in images])
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] or ""
            if not isinstance(text, str):
                raise TypeError("its content is no text")
        except (KeyError, IndexError, TypeError):
            raise OSError(
                f"{self.url} answers with {_short(json.dumps(reply))}; expected a chat completion"
            ) from None
        odds = odds_of_tokens(choice, self.answers)
        if odds is None:
            odds = odds_of_text(text, self.answers)
        usage = reply.get("usage") or {}
        return Answer(
            odds,
            text,
            time.perf_counter() - begin,
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
        )

    def _complete(self, question: str, pictures: Sequence[bytes]) -> dict[str, Any]:
        """The server's reply, after as many tries as it needs and may have."""
        tried = 0
        while True:
            try:
                return self._post(self._body(question, pictures))
            except urllib.error.HTTPError as error:
                said = _short(error.read().decode("utf-8", "replace"))
                named = [x for x in _ADAPTED if x in said and x not in self.refused]
                if error.code == 400 and named:
                    self.refused |= {named[0]}
                    continue
                tried += 1
                if error.code not in _AGAIN or tried >= self.tries:
                    raise OSError(self._complaint(error.code, said)) from None
            except (OSError, http.client.HTTPException) as error:
                tried += 1
                if tried >= self.tries:
                    reason = getattr(error, "reason", None) or error
                    raise OSError(
                        f"cannot reach {self.url} ({reason}); expected a running server; the same "
                        "command again goes on"
                    ) from None
            time.sleep(self.pause * 2 ** (tried - 1))

    def _body(self, question: str, pictures: Sequence[bytes]) -> dict[str, Any]:
        urls = [f"data:image/png;base64,{base64.b64encode(x).decode()}" for x in pictures]
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}} for url in urls
        ]
        content.append({"type": "text", "text": question})
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
        }
        name = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        body[name] = self.max_tokens
        if "temperature" not in self.refused:
            body["temperature"] = 0
        if "logprobs" not in self.refused:
            body |= {"logprobs": True, "top_logprobs": _TOP}
        return body

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            data = response.read()
        try:
            reply = json.loads(data)
            if isinstance(reply, dict):
                return reply
        except ValueError:
            pass
        raise OSError(f"no JSON object, but {_short(data.decode('utf-8', 'replace'))}")

    def _complaint(self, code: int, said: str) -> str:
        if code in (401, 403):
            return (
                f"{self.url} refuses the key (HTTP {code}); expected a valid one in the "
                f"environment variable {self.key_variable}"
            )
        return (
            f"{self.url} answers HTTP {code}: {said}; expected a chat completion of the model "
            f"{self.model!r}; the same command again goes on"
        )


def odds_of_tokens(choice: Mapping[str, Any], answers: tuple[str, str]) -> float | None:
    """Log-odds from the alternatives of the first token; None where neither is among them.

    Spellings that differ in case and blanks are added. An answer that is not among the
    alternatives has at most the probability of the least of them.
    """
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(x["token"]), float(x["logprob"])) for x in listed]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    shares = [
        sum(math.exp(p) for token, p in found if token.strip().lower() == answer.lower())
        for answer in answers
    ]
    if not any(shares):
        return None
    least = max(min(math.exp(p) for _, p in found), 1e-9)
    first, second = (share or least for share in shares)
    return math.log(first / second)


def odds_of_text(text: str, answers: tuple[str, str]) -> float | None:
    """Log-odds, +-``SURE``, of the answer that a text ends with; None where it names neither."""
    words = "|".join(re.escape(answer) for answer in answers)
    found = re.findall(rf"(?<!\w)({words})(?!\w)", text, re.IGNORECASE)
    if not found:
        return None
    return SURE if found[-1].lower() == answers[0].lower() else -SURE


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:300]}..."
