"""The tournament: what is compared, what is asked, what is written, and what is refused."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import arena
import pytest
import torch
from PIL import Image
from stub_models import random_vlm
from tiny_tournament import LEVELS, PROMPTS, LightJudge, asset, write_tournament
from tournament.judges import Answer, VLMJudge
from tournament.layout import read_tournament
from tournament.matches import schedule
from tournament.pictures import Showing
from tournament.questions import CRITERIA, questions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    return write_tournament(tmp_path / "renders")


@pytest.fixture
def play(root, tmp_path, monkeypatch):
    """Runs the command with a judge of our own; returns what it has written by file."""

    def call(*words, judge=None, mode="pairwise", out="out"):
        judge = judge or LightJudge(noise=1.5)
        monkeypatch.setattr(arena, "judge_of", lambda options: judge)
        words = [str(word) for word in words]
        words += ["--size", "16", "--out", str(tmp_path / out)]
        code = arena.main([str(root), "--mode", mode, *words])
        assert code == 0
        return {x.name: x.read_text() for x in (tmp_path / out).iterdir() if x.is_file()}

    return call


# --- the layout and the pictures


def test_the_views_are_those_of_gpteval3d(tmp_path):
    root = write_tournament(tmp_path / "r", frames=120, prompts=("a cup",), levels={"a": 5, "b": 9})

    def numbers(views):
        files = Showing(views, "both").files(asset(root, "a"))
        kinds = [file.stem.split("_") for file in files]
        assert [kind for kind, _ in kinds] == ["rgb"] * views + ["normal"] * views
        return [int(number) for _, number in kinds[:views]]

    assert numbers(1) == [0]
    assert numbers(4) == [0, 30, 60, 90]
    assert numbers(9) == list(range(0, 117, 13))


def test_a_pair_has_the_first_asset_at_the_left_and_normals_below(root):
    picture = Showing(4, "both", 8).pair(asset(root, "light & airy"), asset(root, "dark"))
    assert picture.shape == (3, 32, 16 + 16 + 16)
    left, right = picture[0, :, :16], picture[0, :, -16:]
    expected = torch.tensor([[200.0, 201], [202, 203]]) / 255
    torch.testing.assert_close(left[:16:8, ::8], expected)
    torch.testing.assert_close(left[16::8, ::8], expected)
    torch.testing.assert_close(right[:16:8, ::8], expected - 140 / 255)
    assert Showing(4, "both", 8).frames(asset(root, "dark")).shape == (8, 3, 8, 8)


def test_budgets_are_nested_seeded_and_independent_of_other_methods(root):
    whole = read_tournament(root)
    assert len(schedule(whole, ["overall"])) == 3 * len(PROMPTS)
    two = schedule(whole, ["overall"], per_pair=2)
    three = schedule(whole, ["overall"], per_pair=3)
    assert (len(two), len(three)) == (6, 9)
    assert {*two} < {*three}
    assert schedule(whole, ["overall"], per_pair=2) == two
    drawn = {tuple(schedule(whole, ["overall"], per_pair=2, seed=i)) for i in range(8)}
    assert len(drawn) > 1
    fewer = read_tournament(root, methods=["dark", "middle"])
    assert {*schedule(fewer, ["overall"], per_pair=2)} < {*two}


def test_a_pair_meets_on_the_prompts_of_both(root):
    shutil.rmtree(root / "methods" / "dark" / "1")
    matches = schedule(read_tournament(root), ["overall"])
    assert len(matches) == 3 * len(PROMPTS) - 2
    assert not [m for m in matches if m.first.method == "dark" and m.first.prompt_id == 1]


def test_the_questions_are_named_by_gpteval3ds_numbers_and_can_be_replaced(tmp_path):
    assert [x.number for x in CRITERIA.values()] == list(range(6))
    for mode in ("pairwise", "pointwise"):
        assert list(questions(reversed(CRITERIA), mode)) == list(CRITERIA)
    pair = questions(["texture"], "pairwise")["texture"].format(prompt="a {cup}")
    assert "a {cup}" in pair
    assert CRITERIA["texture"].better in pair
    (tmp_path / "q.json").write_text('{"texture": "Is {prompt} crisp?"}')
    own = questions(["texture", "geometry"], "pointwise", tmp_path / "q.json")
    assert own["texture"].format(prompt="it") == "Is it crisp?"
    assert own["geometry"].template == CRITERIA["geometry"].good


# --- the results


def test_the_files_have_gpteval3ds_layout_and_the_better_method_leads(play):
    files = play("--criteria", "geometry", "overall")
    results = json.loads(files["comparisons.json"])
    assert list(results) == ["4", "5"]
    for lines in results.values():
        assert len(lines) == 3 * len(PROMPTS)
        for line in lines:
            assert line.keys() == {"m1", "m2", "result"}
            assert line["result"] in (-1, 0, 1)
    wins = [x["result"] for x in results["5"] if (x["m1"], x["m2"]) == ("dark", "light & airy")]
    assert sum(wins) == len(PROMPTS)
    scores = json.loads(files["scores.json"])["5"]
    assert scores["ranking"] == ["light & airy", "middle", "dark"]
    assert scores["methods"] == sorted(LEVELS)
    assert max(scores["scores"]) == scores["scores"][1]
    ratings = json.loads(files["ratings.json"])
    first = ratings["criteria"]["overall"]["ratings"][0]
    assert first["method"] == "light & airy"
    assert first["low"] < first["elo"] < first["high"]
    assert ratings["cost"]["questions"] == 2 * 2 * 3 * len(PROMPTS)


def test_a_judge_who_only_likes_the_left_finds_no_winner_and_is_found_out(play):
    files = play("--criteria", "overall", judge=LightJudge(slope=0, bias=3))
    ratings = json.loads(files["ratings.json"])
    assert ratings["position_bias"]["inconsistent"] == 1
    assert ratings["position_bias"]["left"] == pytest.approx(1 / (1 + 2.718281828**-3), abs=1e-6)
    assert {x["result"] for x in json.loads(files["comparisons.json"])["5"]} == {0}
    elo = [x["elo"] for x in ratings["criteria"]["overall"]["ratings"]]
    assert elo == pytest.approx([1000] * 3)


def test_both_orders_are_averaged(play):
    files = play("--criteria", "overall", judge=LightJudge(slope=8, bias=2))
    assert json.loads(files["ratings.json"])["position_bias"]["left"] > 0.55
    ranking = json.loads(files["scores.json"])["5"]["ranking"]
    assert ranking == ["light & airy", "middle", "dark"]


def test_a_pointwise_judge_is_asked_once_about_each_asset(play):
    judge = LightJudge()
    files = play("--criteria", "alignment", judge=judge, mode="pointwise")
    assert judge.asked == len(LEVELS) * len(PROMPTS)
    ratings = json.loads(files["ratings.json"])
    assert ratings["position_bias"] is None
    assert ratings["criteria"]["alignment"]["ratings"][0]["method"] == "light & airy"


def test_methods_that_the_judge_has_steered_are_marked(play, root, capsys):
    mark = {"dark": ["some/vlm", "builtin/blocks"], "light & airy": ["other/vlm"]}
    for method, names in mark.items():
        (root / "methods" / method / "1" / "0" / "rewards.json").write_text(json.dumps(names))
    files = play("--judge", "some/vlm", "--criteria", "overall", mode="pointwise")
    ratings = json.loads(files["ratings.json"])
    assert ratings["steered"] == ["dark"]
    rows = ratings["criteria"]["overall"]["ratings"]
    assert [row["method"] for row in rows if row["steered"]] == ["dark"]
    assert "the reward of these methods" in ratings["criteria"]["overall"]["note"]
    page = files["arena.html"]
    assert '<th scope="row">dark *</th>' in page
    assert "light &amp; airy *" not in page
    out = capsys.readouterr()
    assert "  dark *\n" in out.out
    assert "the reward of these methods" in out.err
    files = play("--judge", "third/vlm", "--criteria", "overall", mode="pointwise", out="third")
    assert json.loads(files["ratings.json"])["steered"] == []
    assert " *</th>" not in files["arena.html"]


def test_an_anchor_and_draws_for_both(play):
    judge = LightJudge(slope=3, noise=1)
    half = json.loads(play("--draw-margin", 0.2, "--anchor", "dark", judge=judge)["scores.json"])
    both = json.loads(
        play("--draw-margin", 0.2, "--anchor", "dark", "--draws", "both", judge=judge)[
            "scores.json"
        ]
    )
    assert half["5"]["scores"][0] == both["5"]["scores"][0] == 1000
    assert half["5"]["scores"] != both["5"]["scores"]


def test_questions_without_an_answer_are_left_out_and_counted(play):
    class Silent(LightJudge):
        def ask(self, question, images):
            answer = super().ask(question, images)
            return Answer(None, "I cannot say") if self.asked == 1 else answer

    files = play("--criteria", "overall", judge=Silent())
    assert len(json.loads(files["comparisons.json"])["5"]) == 3 * len(PROMPTS) - 1
    assert json.loads(files["ratings.json"])["without_answer"] == 1


# --- going on, and not mixing


KILLED = """
import sys
import arena
from tiny_tournament import LightJudge
arena.judge_of = lambda options: LightJudge(noise=1.5, pause=0.2)
arena.main(sys.argv[1:])
"""


@pytest.mark.timeout(900)
def test_a_killed_tournament_goes_on_and_ends_with_the_same_files(root, tmp_path, play):
    whole = play("--criteria", "overall", out="whole")
    out = tmp_path / "killed"
    words = [str(root), "--mode", "pairwise", "--criteria", "overall", "--size", "16"]
    words += ["--out", str(out)]
    paths = [str(ROOT / "examples"), str(ROOT / "tests" / "support"), str(ROOT)]
    code = f"import sys; sys.path[:0] = {paths!r}\n{KILLED}"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE)
    log = out / "answers.jsonl"
    try:
        for _ in range(10_000):
            if log.exists() and log.read_bytes().count(b"\n") >= 5:
                break
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = log.read_bytes().count(b"\n")
    assert 5 <= done < 24
    assert not (out / "comparisons.json").exists()
    with log.open("ab") as file:  # a line that the kill has cut
        file.write(b'{"key": "ab')
    judge = LightJudge(noise=1.5)
    after = play("--criteria", "overall", judge=judge, out="killed")
    assert judge.asked == 24 - done
    for name in ("comparisons.json", "scores.json", "settings.json"):
        assert after[name] == whole[name]
    assert len(after["answers.jsonl"].splitlines()) == 24
    again = LightJudge(noise=1.5)
    assert play("--criteria", "overall", judge=again, out="killed") == after
    assert again.asked == 0


def test_several_questions_at_a_time_give_the_same_results(play):
    one = play("--criteria", "overall")
    many = play("--criteria", "overall", "--jobs", 4, out="many")
    assert many["comparisons.json"] == one["comparisons.json"]


def test_other_pictures_are_judged_anew(play, root):
    play("--criteria", "overall")
    Image.new("RGB", (8, 8), "white").save(root / "methods" / "dark" / "0" / "0" / "rgb_2.png")
    from tournament import pictures

    pictures._digest.cache_clear()
    judge = LightJudge()
    play("--criteria", "overall", judge=judge)
    assert judge.asked == 4  # of two pairs, in both orders


def test_judges_and_questions_are_not_mixed(play, refused, root, tmp_path, monkeypatch):
    play("--criteria", "overall")
    before = {x.name: x.read_bytes() for x in (tmp_path / "out").iterdir() if x.is_file()}
    (tmp_path / "q.json").write_text('{"overall": "Which is better, 1 or 2?"}')
    words = [root, "--out", tmp_path / "out", "--criteria", "overall", "--size", 16, "--mode"]

    def said(*more, judge="light"):
        monkeypatch.setattr(arena, "judge_of", lambda options: LightJudge(name=judge))
        return refused(arena.main, *words, *more)

    assert re.search(
        "the judge .*light.*, received .*other.*--out", said("pairwise", judge="other")
    )
    assert "question about overall" in said("pairwise", "--questions", tmp_path / "q.json")
    assert "the mode" in said("pointwise")
    assert "the views 4, received 1" in said("pairwise", "--views", 1)
    assert "the answers" in said("pairwise", "--answers", "left", "right")
    after = {x.name: x.read_bytes() for x in (tmp_path / "out").iterdir() if x.is_file()}
    assert after == before
    play("--criteria", "texture")  # another criterion is no other judge
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["questions"].keys() == {
        "overall",
        "texture",
    }


# --- the page


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_shows_every_comparison_and_needs_no_network(play, tmp_path):
    text = play("--criteria", "geometry", "overall")["arena.html"]
    page = Reader()
    page.feed(text)
    cards = [x for x in page.all("li") if "data-criterion" in x]
    assert len(cards) == 2 * 3 * len(PROMPTS)
    assert {x["data-first"] for x in cards} == {"dark", "light & airy"}
    pictures = page.all("img")
    assert len(pictures) == 2 * len(cards)
    for picture in pictures:
        assert picture["alt"].startswith("Renders of ")
        with Image.open(tmp_path / "out" / unquote(picture["src"])) as image:
            assert image.size == (192, 192)
    assert len(page.all("svg")) == 2
    assert all("dark" in x["aria-label"] or "light" in x["aria-label"] for x in page.all("svg"))
    labels = {x["for"] for x in page.all("label")}
    assert labels == {x["id"] for x in page.all("select")}
    assert len(labels) == 4
    assert not re.search(r"https?://|@import|url\(|fetch\(", text)
    assert "<b>boat</b>" in "".join(page.text)  # shown, and no element
    assert page.all("b") == []
    assert len(page.all("script")) == 1


def test_the_bars_of_the_page_are_the_intervals(play):
    files = play("--criteria", "overall")
    rows = json.loads(files["ratings.json"])["criteria"]["overall"]["ratings"]
    spans = [
        [float(x) for x in found]
        for found in re.findall(r'class="span" d="M([\d.]+) [\d.]+H([\d.]+)"', files["arena.html"])
    ]
    points = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', files["arena.html"])]
    assert len(spans) == len(points) == 3
    scale = (spans[0][1] - spans[0][0]) / (rows[0]["high"] - rows[0]["low"])
    for row, span, point in zip(rows, spans, points):
        assert span[1] - span[0] == pytest.approx(scale * (row["high"] - row["low"]), abs=0.2)
        assert point - span[0] == pytest.approx(scale * (row["elo"] - row["low"]), abs=0.2)


@pytest.mark.browser
def test_a_browser_filters_the_comparisons(play, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium on the PATH")
    play("--criteria", "geometry", "overall")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 900})
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.on("console", lambda said: errors.append(said) if said.type == "error" else None)
        page.goto((tmp_path / "out" / "arena.html").as_uri())
        visible = page.locator(".matches > li:visible")
        assert visible.count() == 24
        page.get_by_label("Criterion").select_option("overall")
        page.get_by_label("Prompt").select_option("1")
        assert visible.count() == 3
        page.locator("#by-method").select_option("dark")
        assert visible.count() == 2
        assert page.get_by_role("status").inner_text() == "2 of 2 comparisons are shown."
        picture = visible.first.locator("img").first
        picture.scroll_into_view_if_needed()  # pictures are loaded where they are looked at
        page.wait_for_function("image => image.complete", arg=picture.element_handle())
        assert picture.evaluate("image => image.naturalWidth") == 192
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not errors
        browser.close()


# --- models, and mistakes


def test_a_models_odds_are_those_of_its_logits(root):
    """The two answers' logits behind the question, by another way through the library."""
    model = random_vlm()
    judge = VLMJudge(model, ("1", "2"))
    showing = Showing(4, "both", 28)
    pair = asset(root, "dark"), asset(root, "light & airy")
    question = questions(["overall"], "pairwise")["overall"].format(prompt="a {cup}")
    odds = []
    for left, right in (pair, pair[::-1]):
        picture = showing.pair(left, right)[None]
        answer = judge.ask(question, picture)
        asked = judge.reward.ask(question.replace("{cup}", "{{cup}}"), answers=("1", "2"))
        tokens = asked.top_answers(picture, k=asked.backbone.vocabulary)[0]
        shares = {token.token: token.probability for token in tokens}
        first, second = asked.answers.ids
        expected = math.log(shares[first] / shares[second])
        assert answer.log_odds == pytest.approx(expected, abs=1e-4)
        odds.append(answer.log_odds)
    assert odds[0] != odds[1]


def test_the_built_in_model_ranks_what_is_drawn_for_it(tmp_path):
    """Right scenes before wrong colors by what is asked for, and before floaters by soundness."""
    words = ["--mode", "pointwise", "--out", str(tmp_path), "--limit", "4"]
    assert arena.main([*words, "--criteria", "alignment", "plausibility"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["0"]["ranking"][0] == "right"
    assert scores["0"]["ranking"][-1] == "wrong-color"
    assert scores["1"]["ranking"][-1] == "with-floaters"


def test_bad_input(refused, root, tmp_path):
    def said(*words):
        return refused(arena.main, *words, "--mode", "pointwise", "--out", tmp_path / "out")

    assert "prompts.json" in said(tmp_path / "nowhere")
    assert "two or more" in said(root, "--methods", "dark")
    assert "no method 'bright'" in said(root, "--methods", "bright", "dark")
    assert "--anchor 'bright'" in said(root, "--anchor", "bright")
    assert "at least 9" in said(root, "--views", 9)
    assert "expected a URL" in said(root, "--endpoint", "localhost")
    assert "no/such-model" in said(root, "--judge", "no/such-model")
    (tmp_path / "q.json").write_text('{"beauty": "Is it?"}')
    assert "'beauty'" in said(root, "--questions", tmp_path / "q.json")
    (tmp_path / "q.json").write_text('{"overall": "Is {it}?"}')
    assert "'it'" in said(root, "--questions", tmp_path / "q.json")
    assert "cannot read" in said(root, "--questions", tmp_path / "none.json")
    main = arena.main
    pairs = refused(main, root, "--mode", "pairwise", "--out", tmp_path / "out")
    assert "--mode pointwise" in pairs
    rewards = root / "methods" / "dark" / "0" / "0" / "rewards.json"
    for wrong in ("{", '"some/vlm"', "[3]"):
        rewards.write_text(wrong)
        assert "rewards.json holds no list of names" in said(root)
    rewards.unlink()
    (root / "methods" / "dark" / "0" / "0" / "normal_0.png").unlink()
    assert "normal_0.png" in said(root, "--show", "both")
    (root / "prompts.json").write_text('["a cup", 3]')
    assert "3 at place 1" in said(root)
    (root / "prompts.json").write_text("{")
    assert "JSON" in said(root)
