"""The report: what it says, and that it needs nothing but itself."""

import itertools
import re
import shutil
from html.parser import HTMLParser

import imageio.v3 as iio
import numpy as np
import pytest
from exported_meshes import tower
from stub_models import tiny

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.export.geometry import Geometry
from vlmreward_3d.export.mesh.marching_cubes import extract_surface
from vlmreward_3d.export.report.page import save_report
from vlmreward_3d.export.report.svg import curves
from vlmreward_3d.export.run_artifacts import save_turntable, save_views
from vlmreward_3d.vlm3d import StepReport

NASTY = """<script>alert("x")</script> & a 'red' cube"""


METRICS = {
    "sds/loss": 2.0,
    "sds/grad_norm": 1.0,
    "sds/weight": 1.0,
    "vlm/reward": -1.0,
    "vlm/prob_yes": 0.27,
    "vlm/grad_norm": 1.0,
    "vlm/weight": 300.0,
    "field/opacity": 0.3,
    "field/semi_transparent_fraction": 0.1,
    "field/occupancy_fraction": 0.2,
}


def log(steps: int = 12) -> list[StepReport]:
    return [StepReport(i, METRICS | {"vlm/reward": i - 4.0}) for i in range(steps)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A geometry, a picture of views, a turntable."""
    folder = tmp_path_factory.mktemp("parts")
    field = tower()
    cameras = Cameras.turntable(6)
    save_views(folder / "views.png", field, cameras[:4], 64)
    turntable = save_turntable(folder, field, cameras, 64)
    geometry = Geometry(surface=extract_surface(field, resolution=48))
    return geometry, folder / "views.png", turntable


def write(path, parts, reports=None, seconds=24.0, **changes) -> str:
    config = tiny(prompt=NASTY, **changes)
    save_report(path, config, log() if reports is None else reports, *parts, seconds=seconds)
    return path.read_text()


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_all_sections_are_there_with_their_figures(tmp_path, parts):
    page = read(write(tmp_path / "report.html", parts))
    said = page.text
    for heading in ("Model", "Views", "Curves", "Configuration"):
        assert heading in said
    facts = dict(itertools.pairwise(said))
    assert facts["Steps"] == "12"
    assert facts["Final vlm/reward"] == "7"
    assert facts["Final vlm/prob_yes"] == "0.27"
    assert facts["Time of all steps"] == "0 min 24 s"
    assert facts["Time per step"] == "2.00 s"
    tags = [tag for tag, _ in page.tags]
    assert [tags.count(tag) for tag in ("canvas", "video", "img")] == [1, 1, 1]
    assert tags.count("svg") == 6
    settings = set(tiny().flat())
    assert settings <= set(said)
    assert "300 at 0%, 0 at 67%" in said


def test_the_prompt_is_shown_and_never_run(tmp_path, parts):
    page = read(write(tmp_path / "report.html", parts))
    assert page.text.count(NASTY) == 3  # title, heading, configuration
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_what_happened_to_the_run_is_told(tmp_path, parts):
    notes = ["step 6: <fog>; back to step 4", "step 9: not finite"]
    save_report(tmp_path / "report.html", tiny(), log(), *parts, notes=notes)
    page = (tmp_path / "report.html").read_text()
    assert "<li>step 6: &lt;fog&gt;; back to step 4</li><li>step 9: not finite</li>" in page
    (tmp_path / "other").mkdir()
    assert "<li>" not in write(tmp_path / "other" / "report.html", parts)


def test_files_beside_the_page_are_linked_with_their_sizes(tmp_path, parts):
    (tmp_path / "mesh.glb").write_bytes(bytes(123_456))
    (tmp_path / "a b.png").write_bytes(bytes(1200))
    (tmp_path / "run.lock").touch()
    text = write(tmp_path / "report.html", parts)
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a> ([^<]*)<', text)
    assert links == [("a%20b.png", "a b.png", "1.2 kB"), ("mesh.glb", "mesh.glb", "0.1 MB")]


def test_the_command_and_the_versions_are_told(tmp_path, parts):
    provenance = {"Command": "vlm3d '<b>'", "Versions": "torch 9"}
    save_report(tmp_path / "report.html", tiny(), log(), *parts, provenance=provenance)
    said = read((tmp_path / "report.html").read_text()).text
    facts = dict(itertools.pairwise(said))
    assert facts["Command"] == "vlm3d '<b>'"
    assert facts["Versions"] == "torch 9"
    assert "Made with" in said


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("vlm.weighting.grad_ratio", ["2 times", "is not used"]),
        ("vlm.weighting.max_grad_ratio", ["300 at 0%, 0 at 67%", "is lowered", "2 times"]),
    ],
)
def test_a_weight_that_is_not_the_configured_one_is_explained(tmp_path, parts, setting, words):
    plain = tiny().replace({"vlm.weighting.max_grad_ratio": None})
    save_report(tmp_path / "plain.html", plain, log(), *parts)
    assert "grad_ratio chooses" not in (page := (tmp_path / "plain.html").read_text())
    assert "is lowered" not in page
    config = plain.replace({setting: 2.0})
    save_report(tmp_path / "report.html", config, log(), *parts)
    page = (tmp_path / "report.html").read_text()
    for word in words:
        assert word in page


def test_curves_and_pictures_are_described_for_those_who_cannot_see_them(tmp_path, parts):
    tags = read(write(tmp_path / "report.html", parts)).tags
    for tag, attributes in tags:
        if tag in ("svg", "canvas", "video"):
            assert attributes["aria-label"]
        if tag == "img":
            assert attributes["alt"]
    labels = [a["aria-label"] for tag, a in tags if tag == "svg"]
    assert "Reward over the steps: vlm/reward from -4 to 7" in labels


def test_nothing_points_outside(tmp_path, parts):
    text = write(tmp_path / "report.html", parts)
    assert not re.search(r"\b(src|srcset|poster|action)\s*=\s*[\"'](?!data:)", text)
    assert not re.search(r"https?://|url\(|@import|fetch\(|import\(", text)
    (policy,) = [a["content"] for _, a in read(text).tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "href" not in text


def test_without_a_vlm_and_without_times_the_page_says_less(tmp_path, parts):
    bare = [
        StepReport(r.step, {k: v for k, v in r.metrics.items() if "vlm" not in k}) for r in log(5)
    ]
    said = read(write(tmp_path / "r.html", parts, bare, None, vlm=None, steps=5)).text
    assert "Finished: 5 steps, guided by sds." in said
    assert "Final vlm/prob_yes" not in said
    assert "Time per step" not in said


def test_a_gif_is_a_picture(tmp_path, parts):
    geometry, views, _ = parts
    gif = tmp_path / "turntable.gif"
    iio.imwrite(gif, np.zeros((2, 8, 8, 3), dtype=np.uint8))
    tags = read(write(tmp_path / "r.html", (geometry, views, gif))).tags
    assert "video" not in [tag for tag, _ in tags]
    assert any(a.get("src", "").startswith("data:image/gif") for _, a in tags)


def points(svg: str) -> list[np.ndarray]:
    lines = re.findall(r'points="([^"]*)"', svg)
    return [np.array([p.split(",") for p in line.split()], dtype=float) for line in lines]


def test_a_curve_passes_through_its_values():
    (line,) = points(curves({"a": [(0, 0.0), (5, 1.0), (10, 0.5)]}, limits=(0, 1)))
    across, down = line.T
    assert across[1] == pytest.approx((across[0] + across[2]) / 2)
    assert down[0] > down[2] > down[1]
    assert down[2] == pytest.approx((down[0] + down[1]) / 2)
    (line,) = points(curves({"a": [(0, 1.0), (1, 10.0), (2, 100.0)]}, log=True))
    assert line[1, 1] == pytest.approx((line[0, 1] + line[2, 1]) / 2, abs=0.1)


def test_curves_leave_out_what_cannot_be_shown():
    nan, values = float("nan"), [(0, 0.0), (1, 2.0), (2, float("inf")), (3, 4.0)]
    (line,) = points(curves({"a": [*values, (4, nan)]}, log=True))
    assert len(line) == 2
    assert "nothing to show" in curves({"a": [(0, nan)]})
    assert "nothing to show" in curves({"a": []})
    assert len(points(curves({"flat": [(0, 3.0), (9, 3.0)]}))[0]) == 2


def test_long_curves_are_thinned_and_names_escaped():
    svg = curves({"<b>": [(i, float(i)) for i in range(10000)]})
    (line,) = points(svg)
    assert 300 < len(line) <= 600
    assert "&lt;b&gt;" in svg


ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_all_of_it_offline(browser, tmp_path, parts, width):
    write(tmp_path / "report.html", parts)
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors, requests = [], []
    page.on("console", lambda message: errors.append(message) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    assert page.evaluate("document.querySelector('img').naturalWidth") == 4 * 64
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('h1').textContent") == NASTY

    def shown() -> np.ndarray:
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        return iio.imread(page.locator("canvas").screenshot(), extension=".png")[..., :3].astype(
            int
        )

    front = shown()
    assert (front[5, 5] == 255).all()
    red = (front[..., 0] - front[..., 2]) > 100
    blue = (front[..., 2] - front[..., 0]) > 100
    assert 0.05 < (red | blue).mean() < 0.9
    assert red.sum() > 2 * blue.sum()  # the tower is red in front
    page.locator("canvas").focus()
    for _ in range(31):
        page.keyboard.press("ArrowRight")
    behind = shown()
    assert ((behind[..., 2] - behind[..., 0]) > 100).sum() > 2 * blue.sum()
    assert not errors
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()
