"""The page as text, and in a real browser: it is skipped where no chromium is found."""

import json
import re
import shlex
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import stubs
import typer

from evoloss import cli
from evoloss.errors import EvolossError
from evoloss.page import facts, render

HOSTILE = '</script><img src=x onerror="window.hacked=1"><b>&amp;'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return facts.read(stubs.run_directory(tmp_path_factory.mktemp("page") / "run", seed=2))


@pytest.fixture(scope="module")
def hostile(played):
    """Facts in which every text that a stranger may have written tries to get out of its place."""
    rows = {
        name: [row | {"expression": HOSTILE, "name": HOSTILE} for row in getattr(played, name)] for name in ("front",)
    }
    hall = [row | {"expression": HOSTILE, "verdict": HOSTILE, "family": HOSTILE} for row in played.hall]
    generations = [replace(row, best_expression=HOSTILE) for row in played.generations]
    candidates = [replace(candidate, expression=HOSTILE, detail=HOSTILE) for candidate in played.candidates]
    environment = {"machine": HOSTILE, "versions": {HOSTILE: HOSTILE}, "looks": [{"command": HOSTILE}]}
    config = played.config.model_copy(update={"dataset": f"folder:{HOSTILE}", "space_name": HOSTILE})
    changes = {"config": config, "environment": environment, "without": HOSTILE}
    return replace(played, hall=hall, generations=generations, candidates=candidates, **rows, **changes)


class Outline(HTMLParser):
    """What a browser is asked to do: elements with their attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)


def test_the_page_needs_nothing_from_elsewhere(played):
    outline = Outline(render.rendered(played))
    for tag, attributes in outline.elements:
        assert tag not in ("iframe", "img", "object", "embed", "base")
        for name in ("src", "href", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert [a for t, a in outline.elements if t == "meta" and "default-src 'none'" in a.get("content", "")]


def test_the_verdict_comes_first(played):
    words = "".join(Outline(render.rendered(played)).words)
    assert words.index("cross-entropy") < words.index("Hall of fame") < words.index("Family tree")
    assert words.index("fresh seeds, after an equal sweep") < words.index("Hall of fame")


def test_every_section_of_a_complete_run(played):
    text = render.rendered(played)
    sections = set(re.findall(r'<section id="(\w+)"', text))
    assert sections == {
        *("hall", "front", "generations", "curves", "tree", "ends", "playoff", "regimes", "cost", "again")
    }
    drawn = re.findall(r'data-figure="(\w+)"', text)
    assert sorted(drawn) == sorted(render.FIGURES)
    assert json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1]).keys() == set(drawn)


def test_the_same_archive_gives_the_same_page(played):
    assert render.rendered(played) == render.rendered(facts.read(played.directory))


def test_formulas_are_typeset_and_keep_their_text(played):
    text = render.rendered(played)
    assert text.count("<math>") > len(played.hall)
    assert f"<code>{played.winner['expression']}</code>" in text


def test_nothing_from_strangers_is_markup(hostile):
    outline = Outline(render.rendered(hostile))
    assert not [attributes for tag, attributes in outline.elements if tag == "img" or "onerror" in attributes]
    assert sum(tag == "script" for tag, _ in outline.elements) == 3
    assert outline.words.count(HOSTILE) > 10 or "".join(outline.words).count(HOSTILE) > 10


def test_the_command_that_repeats_a_run_is_one(played):
    other = stubs.config(seed=3, selection="nsga2", seed_expressions=("-y*log(p)",), regimes=("adam", "sgd"), top=7)
    for config in (played.config, other, other.model_copy(update={"playoff": False, "samples": 500})):
        words = shlex.split(render.command(config))
        assert words[:2] == ["evoloss", "search"]
        search = typer.main.get_command(cli.app).commands["search"]
        with search.make_context("search", words[2:]) as context:
            given = context.params
        assert (given["dataset"], given["seed"], given["population"]) == (
            config.dataset,
            config.seed,
            config.population,
        )
        assert (given["selection"], given["top"], given["playoff"]) == (config.selection, config.top, config.playoff)
        assert (given["samples"], list(given["seed_expr"] or ())) == (config.samples, list(config.seed_expressions))
        assert given["playoff_seeds"] == (config.space.playoff.seeds if config.playoff else None)


def test_a_page_is_replaced_and_another_file_is_not(played, tmp_path):
    path = render.write(played, tmp_path / "page.html")
    assert render.write(played, path) == path
    (tmp_path / "mine.html").write_text("<p>mine")
    with pytest.raises(EvolossError, match=r"mine\.html exists and is no report of evoloss"):
        render.write(played, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<p>mine"
    with pytest.raises(EvolossError, match="exists and is no report"):
        render.write(played, tmp_path)
    with pytest.raises(EvolossError, match="cannot write"):
        render.write(played, tmp_path / "nowhere" / "page.html")


def test_a_search_without_a_generation_has_no_page(played):
    with pytest.raises(EvolossError, match="its first generation has not finished"):
        render.rendered(replace(played, generations=[]))


def test_the_command(run_cli, played, tmp_path):
    code, out, err = run_cli("report", played.directory)
    assert (code, err) == (0, "")
    written = played.directory / "report.html"
    assert out == f"report: {written} ({written.stat().st_size / 1e6:.1f} MB)\n"
    code, out, _ = run_cli("report", played.directory, "--to", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (played.directory / "report.html").read_bytes()
    code, _, err = run_cli("report", tmp_path)
    assert (code, err) == (1, f"evoloss: {tmp_path} is no run directory: it has no run.toml\n")


def test_a_run_of_tables_alone_has_a_page(run_cli, played, tmp_path):
    run = shutil.copytree(played.directory, tmp_path / "run", ignore=shutil.ignore_patterns("*.sqlite*", "*.html"))
    assert run_cli("report", run)[0] == 0
    words = "".join(Outline((run / "report.html").read_text()).words)
    assert "Made from the tables of the run: the run directory has no archive." in words


# In a browser


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser, path, width=1100, scheme="light"):
    """The page, once its figures are drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get("about:blank")
    browser.get(path.as_uri())
    wait(browser, "document.documentElement.dataset.drawn === 'yes'")
    return browser


def wait(browser, condition):
    until = time.monotonic() + 120
    while not browser.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < until, f"{condition}: {browser.get_log('browser')}"


@pytest.fixture(scope="module")
def path(played, tmp_path_factory):
    return render.write(played, tmp_path_factory.mktemp("browser") / "report.html")


@needs_browser
def test_all_figures_are_drawn_without_an_error_or_a_request(browser, path):
    opened(browser, path)
    drawn = "[...document.querySelectorAll('.plot')].filter(plot => plot.querySelector('.trace, .bars'))"
    assert browser.execute_script(f"return {drawn}.map(plot => plot.dataset.figure).sort()") == sorted(render.FIGURES)
    assert browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    assert browser.get_log("browser") == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_is_wider_than_the_window(browser, path, width, scheme):
    opened(browser, path, width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.plot svg')].some(svg => svg.getBoundingClientRect().right > innerWidth + 1)"
    assert not browser.execute_script(f"return {wide}")
    assert browser.get_log("browser") == []


@needs_browser
def test_dark_is_dark_and_figures_follow_a_change(browser, path):
    opened(browser, path, scheme="light")
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    page_color = "getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(f"return [{ink}, {page_color}]")
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    wait(browser, f"{ink} !== '{light[0]}'")
    dark = browser.execute_script(f"return [{ink}, {page_color}]")
    brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (*light, *dark)]
    assert brightness[0] < brightness[1]
    assert brightness[2] > brightness[3]


@needs_browser
def test_the_hall_of_fame_is_sorted_by_keyboard(browser, path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, path)
    headers = browser.find_elements(By.CSS_SELECTOR, "#hall .scroll:first-of-type th")
    (place,) = [n for n, header in enumerate(headers) if header.text.startswith("complexity")]
    column = (
        f"[...document.querySelectorAll('#hall table')[0].tBodies[0].rows].map(row => row.cells[{place}].innerText)"
    )
    before = list(map(int, browser.execute_script(f"return {column}")))
    button = headers[place].find_element(By.TAG_NAME, "button")
    assert headers[place].get_attribute("aria-sort") == "none"
    button.send_keys(Keys.ENTER)
    assert headers[place].get_attribute("aria-sort") == "ascending"
    assert list(map(int, browser.execute_script(f"return {column}"))) == sorted(before)
    button.send_keys(Keys.SPACE)
    assert headers[place].get_attribute("aria-sort") == "descending"
    assert list(map(int, browser.execute_script(f"return {column}"))) == sorted(before, reverse=True)
    assert browser.execute_script("return document.activeElement.matches(':focus-visible')")
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


@needs_browser
def test_the_front_shows_its_formula_on_hover(browser, path, played):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    opened(browser, path)
    plot = browser.find_element(By.CSS_SELECTOR, "[data-figure=pareto]")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", plot)
    point = plot.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace:last-child .points path")[0]
    ActionChains(browser).move_to_element(point).perform()
    wait(browser, "document.querySelector('[data-figure=pareto] .hoverlayer .hovertext')")
    shown = plot.find_element(By.CSS_SELECTOR, ".hovertext").text.replace("\n", "").replace(" ", "")
    assert played.front[0]["expression"].replace(" ", "") in shown


@needs_browser
def test_formulas_of_strangers_run_nothing(browser, hostile, tmp_path):
    opened(browser, render.write(hostile, tmp_path / "hostile.html"))
    plots = "[...document.querySelectorAll('.plot')].filter(plot => plot.querySelector('.points path'))"
    browser.execute_script(f"for (const plot of {plots}) Plotly.Fx.hover(plot, [{{curveNumber: 0, pointNumber: 0}}])")
    assert browser.execute_script("return [window.hacked ?? null, document.querySelectorAll('img').length]") == [
        None,
        0,
    ]
    assert browser.get_log("browser") == []
