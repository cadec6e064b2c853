"""The stored notebooks as pages without a kernel: everything has its figure or its words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = {  # the call that shows a widget, in the notebook
    "00_start_here": "type_and_compare(",
    "01_transformer_basics": "attention_viewer(",
    "03_the_distillation_loss": "figures.temperature_slider(",
    "08_pruning": "figures.prune_by_slider(",
}
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=WIDGETS)
def stem(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def page(chromium, stem, tmp_path_factory) -> Iterator:
    """The notebook as nbconvert writes it, opened as a file where there is no network."""
    html, _ = HTMLExporter().from_filename(ROOT / "notebooks" / f"{stem}.ipynb")
    file = tmp_path_factory.mktemp("pages") / "page.html"
    file.write_text(html, encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1100, "height": 1000})
    page.route("http*://**", lambda route: route.abort())
    page.goto(file.as_uri())
    yield page
    page.close()


def test_a_widget_leaves_its_words_below_the_figure_that_stands_for_it(page, stem):
    cell = page.locator(".jp-CodeCell", has_text=WIDGETS[stem]).last
    said = cell.locator(".jp-OutputArea-output").inner_text().strip()
    assert said[0] == "(", said
    assert said.endswith("a running kernel.)"), said
    before = cell.locator("xpath=preceding::img").last
    assert before.is_visible()
    text = page.locator("body").inner_text()
    for left_over in ("VBox(", "children=(", "Error displaying widget", "Loading widget"):
        assert left_over not in text


def test_every_figure_is_there_and_has_words(page):
    figures = page.locator(".jp-OutputArea-output img").evaluate_all(
        "nodes => nodes.map(n => [n.getAttribute('alt'), n.naturalWidth, n.clientWidth])"
    )
    assert len(figures) >= 2
    assert [one for one in figures if not one[0] or 0 in one[1:]] == []


def test_no_output_is_an_empty_box(page):
    empty = page.locator(".jp-OutputArea-output").evaluate_all(
        "nodes => nodes.filter(n => !n.innerText.trim() && !n.querySelector('img'))"
        ".map(n => n.outerHTML)"
    )
    assert empty == []


def test_headings_are_in_order(page):
    levels = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all(
        "nodes => nodes.map(n => Number(n.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
