from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

import millpond as mp
from millpond.training.gates import Champion
from millpond.training.report import Heading, render
from millpond.training.train import train

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Sections by id with their text, all ids, and whether the tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.sections: dict[str, str] = {}
        self.section = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        if "id" in given:
            self.ids.append(given["id"])
        self.links += [value for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag == "section" or given.get("id") == "verdict":
            self.section = given["id"]
            self.sections[self.section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        if self.section:
            self.sections[self.section] += data


COMMON = {"verdict", "gates", "metrics", "split", "importance", "slices", "data", "parameters"}


@pytest.fixture(scope="module")
def tuned(declare, examples):
    model = declare(tune=mp.Tune(trials=3), gates=[mp.at_least("roc_auc", 0.99), mp.beats_champion("f1")])
    champion = Champion(7, lambda rows: [0.25] * rows.num_rows)
    return train(model, examples(null_labels=1234), champion=champion)


def test_a_classifier_with_everything(tuned):
    html = render(
        tuned,
        heading=Heading(8, "Late <or> not?", "ops", datetime(2024, 3, 1, 9, 30, tzinfo=UTC), "ada"),
        lineage={"Training set": "training.late@42", "Sources": {"flights": 7}, "Packages": ["lightgbm 4.7"]},
    )
    page = Page(html)
    assert set(page.sections) == COMMON | {"curves", "calibration", "confusion", "tuning", "lineage"}
    assert "1 of 2 gates failed (roc_auc >= 0.99), so it may not be promoted" in page.sections["verdict"]
    assert f"{tuned.metrics['test.roc_auc']:.4f}" in page.sections["metrics"]
    assert f"{tuned.metrics['champion.test.brier']:.4f}" in page.sections["metrics"]
    assert "1,234 have no label" in page.sections["split"]
    assert f"{tuned.split.purged_train} of the training part" in page.sections["split"]
    assert f"{tuned.split.test_from:%Y-%m-%d %H:%M}" in page.sections["split"]
    assert "sky (2 features)" in page.sections["importance"]
    assert "training.late@42" in page.sections["lineage"]
    assert "flights" in page.sections["lineage"]
    assert "Late &lt;or&gt; not?" in html
    assert "late, version 8" in html


def test_a_regressor_without_the_rest(regressor):
    page = Page(render(regressor))
    assert set(page.sections) == COMMON | {"residuals"}
    assert "off by" in page.sections["verdict"]
    assert "mean of the training labels" in page.sections["metrics"]


@pytest.mark.parametrize("fixture", ["tuned", "regressor"])
def test_the_page_needs_nothing_else(fixture, request):
    html = render(request.getfixturevalue(fixture))
    page = Page(html)
    assert not re.search(r"https?:|//\w+\.\w+|@import|javascript:", html)
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)), "ids of the plots do not clash"
    assert not page.tags & {"script", "iframe", "link", "img", "object"}
    assert len(html) < 1_500_000
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL).lower().split()
    assert html == render(request.getfixturevalue(fixture)), "the same model gives the same page"


def test_it_is_readable_without_gates_slices_and_times(declare, examples):
    bare = train(declare(estimator="linear"), examples(at=None, label_known=None, slices=()))
    page = Page(render(bare))
    assert "None were declared" in page.sections["gates"]
    assert "Name columns" in page.sections["slices"]
    assert "stable hash" in page.sections["split"]
    assert "no gate was declared" in page.sections["verdict"]


def test_user_text_is_never_markup(classifier):
    evil = replace(classifier, model="<script>alert(1)</script>", warnings=("<b>",))
    html = render(evil, lineage={"<i>": "<u>"})
    assert "<script>" not in html
    assert "<u>" not in html
