"""Bad inputs of every kind: each is refused in one line, and nothing is lost."""

import os

import bad_objects
import calls_3d
import calls_images
import calls_questions
import calls_wrappers
import commands_examples
import commands_vlmreward
import pytest
from harness import fill, judge_call, judge_command, judge_output, judge_process

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CALLS = [
    *calls_images.ROWS,
    *calls_questions.ROWS,
    *calls_wrappers.ROWS,
    *calls_3d.ROWS,
]
COMMANDS = [*commands_vlmreward.ROWS, *commands_examples.ROWS]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names that the tables' expressions may use, shared by all; no expression changes them."""
    return bad_objects.names(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Image files for the commands."""
    folder = tmp_path_factory.mktemp("pictures")
    bad_objects.make_pictures(folder)
    return folder


def by_name(rows):
    return [pytest.param(row, id=row[0]) for row in rows]


@pytest.mark.parametrize("row", by_name(CALLS))
def test_a_call(row, names):
    assert (verdict := judge_call(row, names)) is None, verdict


@pytest.mark.parametrize("row", by_name(COMMANDS))
def test_a_command(row, pictures, tmp_path):
    fill(tmp_path, pictures)
    assert (verdict := judge_command(row, tmp_path)) is None, verdict


@pytest.mark.parametrize("name", commands_vlmreward.OUTPUTS)
def test_what_is_written_keeps_its_kind(name, pictures, tmp_path):
    fill(tmp_path, pictures)
    command = "vlmreward score picture.png --prompt cube --out"
    assert (verdict := judge_output(name, command, tmp_path)) is None, verdict


@pytest.mark.parametrize("row", by_name(commands_vlmreward.PROCESSES))
def test_a_process(row, pictures, tmp_path):
    _, words, environment, message = row
    fill(tmp_path, pictures)
    verdict = judge_process(words, tmp_path, message, **environment)
    assert verdict is None, verdict


def test_the_tables_are_large_and_name_every_row_once():
    every = [row[0] for row in (*CALLS, *COMMANDS)]
    assert len(every) >= 250
    assert len(set(every)) == len(every)
