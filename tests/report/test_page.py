"""The page: whole, self-contained, the same for the same comparison, and safe with any name."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from vitlens import report
from vitlens.errors import ComparisonError

from .made import made_comparison


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self._inside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def page(comparison, figures, tmp_path_factory):
    return report.write(comparison, tmp_path_factory.mktemp("page") / "report.html", figures=figures)


def test_the_page_asks_nothing_of_the_network(page):
    for tag, attributes in read(page).tags:
        assert "src" not in attributes, tag
        assert not str(attributes.get("href", "#")).startswith(("http", "//")), tag
        assert tag not in ("link", "iframe", "img", "object", "embed")
    policy = next(
        a["content"] for tag, a in read(page).tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_plotly_is_inside_once(page):
    content = page.read_text(encoding="utf-8")
    assert len(re.findall(r"plotly\.js v\d", content)) == 1
    assert len(content) < 10e6


def test_the_page_has_a_language_a_viewport_headings_and_labels(page, figures):
    tags = read(page).tags
    assert ("html", {"lang": "en"}) in tags
    assert any(attributes.get("name") == "viewport" for _, attributes in tags)
    assert sum(tag == "h1" for tag, _ in tags) == 1
    plots = [attributes for tag, attributes in tags if attributes.get("class") == "plot"]
    assert len(plots) == len(figures)
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)


def test_links_inside_the_page_lead_somewhere(page):
    tags = read(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links
    assert all(link[1:] in ids for link in links)


def test_the_words_state_the_rows(comparison, page):
    text = " ".join(" ".join(read(page).text).split())
    rows = comparison.summary()
    rows = rows[(rows["metric"] == "top1_accuracy") & (rows["checkpoint"] == "tuned on blur")]
    for row in rows.itertuples():
        assert f"{100 * row.value_reference:.1f} % to {100 * row.value:.1f} %" in text
    assert "What changed from base to tuned on blur and tuned on noise" in text


def test_the_table_has_each_scalar_row(comparison, page):
    rows = comparison.summary()
    n_scalar = int(rows["layer"].isna().sum())
    content = page.read_text(encoding="utf-8")
    table = content[content.index("<table") : content.index("</table>")]
    assert (
        table.count('<td class="changed">')
        + table.count('<td class="undecided">')
        + table.count('<td class="equivalent">')
        == n_scalar
    )


def test_provenance_is_shown(page):
    text = " ".join(read(page).text)
    assert "made images, seed 0" in text
    assert f"{1:064x}" in text


def test_the_same_comparison_gives_the_same_bytes(comparison, page, tmp_path):
    assert report.write(comparison, tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_names_from_data_are_harmless_everywhere(tmp_path):
    evil = "<script>alert(1)</script>"
    comparison = made_comparison(
        ("base", evil),
        ("clean", "</script><b>%{x}"),
        n_images=20,
        class_names=[f"{evil}{index}" for index in range(10)],
    )
    comparison = dataclasses.replace(comparison, provenance={evil: evil})
    path = report.write(comparison, tmp_path / "report.html", title=evil)
    content = path.read_text(encoding="utf-8")
    assert "<script>alert" not in content
    assert "<b>%{x}" not in content
    tags = [tag for tag, _ in read(path).tags]
    whole = report.write(made_comparison(n_images=20), tmp_path / "whole.html")
    assert tags.count("script") == [tag for tag, _ in read(whole).tags].count("script")
    for name, figure in report.figures(comparison).items():
        for trace in figure.data:
            assert "<script" not in f"{trace.name}", name


def test_margins_of_ones_own_are_reported(comparison, figures, tmp_path):
    rows = comparison.summary()
    rows["verdict"] = "undecided"
    path = report.write(comparison, tmp_path / "report.html", figures=figures, summary=rows)
    content = path.read_text(encoding="utf-8")
    assert '<td class="changed">' not in content


def test_what_is_not_there_leaves_no_gap(comparison, tmp_path):
    bare = dataclasses.replace(
        comparison,
        data=comparison.data[["rank"]],
        examples=None,
        features=None,
        provenance={},
        class_names=None,
    )
    rows = comparison.summary()
    path = report.write(bare, tmp_path / "r.html", summary=rows[rows["metric"] == "top1_accuracy"])
    text = " ".join(read(path).text)
    assert "Provenance" not in text
    assert "Accuracy" in text
    assert "nan" not in text.lower()


def test_values_that_are_no_numbers_are_shown_as_such(comparison, tmp_path):
    data = comparison.data.copy(deep=True)
    data["correct_probability"].values[1, 0] = np.nan
    data["attention_entropy_nats"].values[:, 2] = np.nan
    less = data.drop_vars(["lens_probability", "last_change_layer"])
    made = dataclasses.replace(comparison, data=less, examples=None, features=None)
    path = report.write(made, tmp_path / "r.html")
    assert "NaN" not in path.read_text(encoding="utf-8").split("<script>")[0]


def test_a_folder_is_no_place_for_a_page(comparison, tmp_path):
    with pytest.raises(ComparisonError, match="is a folder"):
        report.write(comparison, tmp_path)


def test_an_empty_summary_still_makes_a_page(comparison, tmp_path):
    empty = pd.DataFrame(columns=comparison.summary().columns)
    less = dataclasses.replace(comparison, data=comparison.data[["rank", "attention_entropy_nats"]])
    assert report.write(less, tmp_path / "r.html", summary=empty).exists()


def test_figures_stand_under_their_headings_and_in_the_contents(page, figures):
    content = page.read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", content)
    sections = list(dict.fromkeys(figure.layout.meta["section"] for figure in figures.values()))
    assert headings == ["Summary", "Table", *sections, "Provenance"]
    contents = content[content.index("<nav") : content.index("</nav>")]
    for place, (name, figure) in enumerate(figures.items(), start=1):
        target = f"figure-{place}-{name.replace('_', '-')}-title"
        assert f'<a href="#{target}">{figure.layout.title.text}</a>' in contents
        above = content[: content.index(f'<h3 id="{target}"')]
        assert above[above.rindex("<h2>") :].startswith(f"<h2>{figure.layout.meta['section']}</h2>")


def test_a_figure_of_ones_own_stands_where_it_says(comparison, figures, tmp_path):
    mine, said = go.Figure(), go.Figure().update_layout(meta={"section": "Lenses & more", "caption": "Mine."})
    given = {"accuracy": figures["accuracy"], "my_own": mine, "said": said}
    content = report.write(comparison, tmp_path / "r.html", figures=given).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", content)
    assert headings[2:5] == ["Predictions", "Further", "Lenses &amp; more"]
    assert '<a href="#section-lenses-more">Lenses &amp; more</a>' in content
