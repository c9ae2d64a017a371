"""The judge behind an endpoint, against a server on this machine."""

import base64
import io
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image
from tournament.endpoint import SURE, EndpointJudge, odds_of_text

SECRET = "sk-never-to-be-written"


class Server(ThreadingHTTPServer):
    """Answers requests by a function of their number and body -> status and reply."""

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.bodies, self.headers = answer, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.headers.append({"path": self.path, **self.headers})
        status, reply = self.server.answer(len(self.server.bodies), body)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def completion(text, probabilities=None):
    choice = {"message": {"content": text}}
    if probabilities:
        top = [{"token": k, "logprob": math.log(p)} for k, p in probabilities.items()]
        choice["logprobs"] = {"content": [{"token": text, "top_logprobs": top}]}
    return {"choices": [choice], "usage": {"prompt_tokens": 700, "completion_tokens": 1}}


@pytest.fixture
def served():
    """Starts servers, which end with the test."""
    running = []

    def start(answer):
        server = Server(answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def judge_at(server, **options):
    options = {"pause": 0.0, "key_variable": "ARENA_TEST_KEY"} | options
    return EndpointJudge(server.url, "some-model", ("1", "2"), **options)


def ask(judge):
    return judge.ask("Which one?", torch.stack([torch.zeros(3, 4, 6), torch.ones(3, 4, 6)]))


def test_odds_come_from_the_probabilities_of_the_first_token(served, monkeypatch):
    monkeypatch.setenv("ARENA_TEST_KEY", SECRET)
    reply = completion("1", {"1": 0.5, " 1": 0.1, "2": 0.2, "The": 0.1})
    server = served(lambda number, body: (200, reply))
    judge = judge_at(server)
    answer = ask(judge)
    assert answer.log_odds == pytest.approx(math.log(0.6 / 0.2))
    assert (answer.input_tokens, answer.output_tokens, answer.text) == (700, 1, "1")
    assert answer.seconds > 0

    (body,), (headers,) = server.bodies, server.headers
    assert headers["path"] == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert (body["model"], body["temperature"], body["logprobs"]) == ("some-model", 0, True)
    *pictures, words = body["messages"][0]["content"]
    assert words == {"type": "text", "text": "Which one?"}
    kind, _, data = pictures[1]["image_url"]["url"].partition(";base64,")
    assert (kind, len(pictures)) == ("data:image/png", 2)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (6, 4)
        assert image.getpixel((0, 0)) == (255, 255, 255)
    assert SECRET not in json.dumps([judge.identity, vars(judge)], default=str)


def test_an_answer_that_is_not_listed_has_at_most_the_least_probability(served):
    server = served(lambda number, body: (200, completion("2", {"2": 0.9, "3": 0.05})))
    assert ask(judge_at(server)).log_odds == pytest.approx(math.log(0.05 / 0.9))


def test_without_probabilities_the_text_is_read(served):
    texts = ["Object 1 is plain.\nThe answer is 2.", "12 or 21", ""]
    server = served(lambda number, body: (200, completion(texts[number - 1])))
    judge = judge_at(server)
    assert ask(judge).log_odds == -SURE
    assert ask(judge).log_odds is None
    assert ask(judge).log_odds is None
    assert odds_of_text("YES!", ("Yes", "No")) == SURE
    assert odds_of_text("Nothing", ("Yes", "No")) is None


def test_fields_that_a_server_refuses_are_left_out(served):
    def answer(number, body):
        for field, said in (
            ("logprobs", "logprobs are not supported"),
            ("max_tokens", "Use 'max_completion_tokens' instead of 'max_tokens'"),
            ("temperature", "temperature must be 1"),
        ):
            if field in body:
                return 400, {"error": {"message": said}}
        return 200, completion("1")

    server = served(answer)
    judge = judge_at(server)
    assert ask(judge).log_odds == SURE
    assert len(server.bodies) == 4
    ask(judge)
    assert len(server.bodies) == 5  # they are known by now
    assert server.bodies[-1]["max_completion_tokens"] == 16


def test_a_busy_server_is_asked_again(served):
    server = served(lambda number, body: (503, {}) if number < 3 else (200, completion("1")))
    assert ask(judge_at(server)).log_odds == SURE
    assert len(server.bodies) == 3
    server = served(lambda number, body: (429, {"error": "slow down"}))
    with pytest.raises(OSError, match=r"HTTP 429.*slow down.*expected"):
        ask(judge_at(server, tries=2))
    assert len(server.bodies) == 2


def test_what_is_wrong_is_said_in_words_without_the_key(served, monkeypatch):
    monkeypatch.setenv("ARENA_TEST_KEY", SECRET)
    cases = {
        "refuses the key.*ARENA_TEST_KEY": (401, {"error": "no"}),
        "HTTP 404.*some-model": (404, {"error": "unknown model"}),
        "expected a chat completion": (200, {"choices": []}),
        "no JSON object": (200, b"<html>"),
    }
    for message, reply in cases.items():
        server = served(lambda number, body, reply=reply: reply)
        with pytest.raises(OSError, match=message) as caught:
            ask(judge_at(server, tries=1))
        assert SECRET not in str(caught.value)
    closed = served(lambda number, body: (200, {}))
    closed.shutdown()
    closed.server_close()
    with pytest.raises(OSError, match=r"cannot reach.*expected a running server"):
        ask(judge_at(closed, tries=2))


def test_only_a_plain_url_is_taken():
    for url in ("localhost:8000", "ftp://host/v1", "http://me:secret@host/v1", "http://h/v1?key=x"):
        with pytest.raises(ValueError, match="expected a") as caught:
            EndpointJudge(url, "m", ("1", "2"))
        assert "secret" not in str(caught.value)
