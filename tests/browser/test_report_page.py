"""Reports in a real browser: what they load, whether they fit, and what a keyboard and a screen reader meet.

A short form is part of `make test`, where a Chromium is installed; `make test-browser` looks at more pages.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_up_report import HOSTILE, make_rows, make_summary, render, with_slices_and_label_errors

from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools.report import page as comparison_page
from tfpipe.tools.report.comparison import compare
from tfpipe.tools.report.runs import open_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 1280)
FOCUSABLE = "a[href], summary, [tabindex='0']"


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    """A page with every section."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    summary = with_slices_and_label_errors(make_summary(precision=0.9))
    path.write_text(render(summary, make_rows(summary)), encoding="utf-8")
    return path


class Opened:
    """A page in a browser, and what happened while it was opened."""

    def __init__(self, browser, path: Path, width: int, scheme: str, *, policy: bool = True):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=not policy
        )
        self.page, self.requests, self.messages = self.context.new_page(), [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()

    def unfold(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")


def check_loading_and_width(browser, path: Path, width: int, scheme: str) -> None:
    with Opened(browser, path, width, scheme) as opened:
        opened.unfold()
        opened.page.wait_for_timeout(50)
        assert (opened.requests, opened.messages) == ([path.as_uri()], [])
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        # A policy that forbade the page's own style would leave the browser's margin.
        assert opened.page.evaluate("getComputedStyle(document.body).margin") == "0px"


def check_accessibility(browser, path: Path, width: int, scheme: str) -> None:
    with Opened(browser, path, width, scheme, policy=False) as opened:  # axe is a script
        opened.unfold()
        found = axe.Axe().run(opened.page)
        told = [
            (each["id"], each["help"], each["nodes"][0]["html"][:200], each["nodes"][0].get("failureSummary"))
            for each in found.response["violations"]
        ]
        assert told == []
        assert any(each["id"] == "color-contrast" for each in found.response["passes"])


def check_keyboard(browser, path: Path, width: int) -> None:
    with Opened(browser, path, width, "light") as opened:
        page = opened.page
        page.evaluate(
            f"[...document.querySelectorAll({FOCUSABLE!r})].filter(each => each.checkVisibility())"
            ".forEach((each, at) => { each.dataset.at = at })"
        )
        expected, reached = page.evaluate("document.querySelectorAll('[data-at]').length"), []
        for _ in range(expected):
            page.keyboard.press("Tab")
            at, outline = page.evaluate(
                "[document.activeElement.dataset.at, getComputedStyle(document.activeElement).outline]"
            )
            assert "none" not in outline and "solid 3px" in outline
            reached.append(at)
        assert expected > 5 and reached == [str(at) for at in range(expected)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_nothing_and_fits(browser, made_up, width, scheme):
    check_loading_and_width(browser, made_up, width, scheme)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_it_can_be_read_by_everyone(browser, made_up, width, scheme):
    check_accessibility(browser, made_up, width, scheme)


def test_a_keyboard_reaches_everything(browser, made_up):
    check_keyboard(browser, made_up, 1280)


def test_the_skip_link_is_first_and_is_seen_when_it_has_the_focus(browser, made_up):
    with Opened(browser, made_up, 390, "light") as opened:
        link = opened.page.locator(".skip")
        assert not link.is_visible() or link.bounding_box()["x"] < 0
        opened.page.keyboard.press("Tab")
        assert link.bounding_box()["x"] >= 0
        opened.page.keyboard.press("Enter")
        assert opened.page.evaluate("document.activeElement.id") == "main"


def test_dark_plots_have_light_texts(browser, made_up):
    colors = {}
    for scheme in ("light", "dark"):
        with Opened(browser, made_up, 1280, scheme) as opened:
            colors[scheme] = opened.page.evaluate(
                "['svg text', 'svg path[stroke]', 'body'].map(each => getComputedStyle(document.querySelector(each)))"
                ".map((each, at) => [each.fill, each.stroke, each.backgroundColor][at])"
            )
    assert all(light != dark for light, dark in zip(colors["light"], colors["dark"], strict=True)), colors


@pytest.fixture(scope="module", params=["run", "hostile", "many labels", "several labels", "comparison"])
def page(request, tmp_path_factory, tiny_run) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    if request.param == "run":
        return RunDirectory(tiny_run[1]).path / "report" / "report.html"
    if request.param == "comparison":
        other = shutil.copytree(tiny_run[1], path.parent / "other")
        comparison_page.write(compare([open_run(str(tiny_run[1])), open_run(str(other))]), path)
        return path
    labels = {"hostile": HOSTILE, "many labels": tuple(f"label {at}" for at in range(150))}
    task = "multi_label" if request.param == "several labels" else "single_label"
    summary = make_summary(labels=labels.get(request.param, ("a", "b", "c")), task=task, rows=600)
    text = " ".join(HOSTILE) + " " + "x" * 400
    path.write_text(render(with_slices_and_label_errors(summary, text), make_rows(summary, text)), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_loads_nothing_and_fits(browser, page, width, scheme):
    check_loading_and_width(browser, page, width, scheme)
    check_accessibility(browser, page, width, scheme)


@pytest.mark.slow
def test_a_keyboard_reaches_everything_of_every_page(browser, page):
    check_keyboard(browser, page, 390)
