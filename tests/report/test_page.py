"""The page: whole, self-contained, the same for the same comparison, and safe with any name."""

import dataclasses
import itertools
import json
import re
import types
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from vitlens import report
from vitlens.errors import ComparisonError
from vitlens.report.shell import asset
from vitlens.report.summary_tables import N_CELLS, cells_html, rows_json
from vitlens.report.wording import Spoken

from .made import made_comparison
from .made_gallery import made_gallery


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
        assert str(attributes.get("src", "data:")).startswith("data:"), tag
        assert not str(attributes.get("href", "#")).startswith(("http", "//")), tag
        assert tag not in ("link", "iframe", "object", "embed")
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


def test_the_table_has_each_scalar_row_and_each_can_be_linked_to(comparison, page):
    rows = comparison.summary().reset_index(drop=True)
    scalar = rows[rows["layer"].isna()]
    content = page.read_text(encoding="utf-8")
    table = content[content.index('id="summary-table"') :]
    table = table[: table.index("</table>")]
    for label, row in scalar.iterrows():
        here = table[table.index(f'<tr id="row-{label}"') :]
        here = here[: here.index("</tr>")]
        assert f'data-verdict="{row["verdict"]}"' in here
        assert f'data-value="{row["difference"]:.9g}"' in here
    assert table.count("<tr id=") == len(scalar)


def test_of_very_many_cells_the_surest_are_shown_and_all_can_be_saved(deit_comparison):
    rows = deit_comparison.summary().reset_index(drop=True)
    cells = rows[rows["layer"].notna()]
    shown = cells_html(rows, Spoken())
    assert f"{len(cells):,} rows over layers and heads; here the {N_CELLS:,}" in shown
    assert shown.count("<tr ") == N_CELLS
    surest = cells["p_adjusted"].sort_values().iloc[N_CELLS - 1]
    told = [float(p) for p in re.findall(r'data-value="([^"]*)">(?:\.\d+|&lt;\.001|1\.000)</td>', shown)]
    assert max(told) <= surest * (1 + 1e-6)
    assert len(json.loads(rows_json(rows))["metric"]) == len(rows)


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
    assert 'data-verdict="changed"' not in content


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


def test_provenance_is_folded_and_the_call_to_repeat_it_is_not(comparison, figures, tmp_path):
    call = "vitlens compare base=a.safetensors tuned=b.safetensors --data <photos>"
    told = dataclasses.replace(comparison, provenance={**comparison.provenance, "call": call})
    content = report.write(told, tmp_path / "r.html", figures={}).read_text(encoding="utf-8")
    section = content[content.index('<section id="section-provenance"') :]
    folded = section.index("<details>")
    assert "--data &lt;photos&gt;</code>" in section[:folded]
    assert f"{1:064x}" in section[folded:]


def test_headings_go_down_one_level_at_a_time_and_images_are_described(page):
    tags = read(page).tags
    levels = [int(tag[1]) for tag, _ in tags if tag in ("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert [tag for tag, _ in tags if tag in ("header", "nav", "main")] == ["header", "nav", "main"]
    first_link = next(attributes for tag, attributes in tags if tag == "a")
    assert first_link == {"class": "skip", "href": "#main"}


def test_a_figures_label_says_what_is_to_be_seen(comparison, page):
    label = next(a["aria-label"] for _, a in read(page).tags if a.get("id") == "figure-1-accuracy-plot")
    right = 100 * (comparison.data["rank"] == 0).mean("image").sel(checkpoint="base")
    least, most = str(right.idxmin("condition").item()), str(right.idxmax("condition").item())
    assert f"base: {right.min().item():.4g} ({least}) to {right.max().item():.4g} ({most})" in label


def test_each_figure_says_the_definition_of_what_it_shows(page):
    content = page.read_text(encoding="utf-8")
    figure = content[content.index('<figure id="figure-1-accuracy"') :]
    figure = figure[: figure.index("</figure>")]
    assert "<dt>Top-1 accuracy</dt><dd>Share of images with the correct class among the 1 most" in figure
    assert "200 images per condition" in figure


def test_a_place_on_the_stream_is_defined_by_its_variable(comparison, tmp_path):
    attributes = {"units": "nats", "long_name": "Entropy of the lens", "description": "Low where it is sure."}
    data = comparison.data[["rank", "lens_probability"]].rename(lens_probability="lens_entropy_nats")
    data["lens_entropy_nats"].attrs = attributes
    made = dataclasses.replace(comparison, data=data, examples=None, features=None)
    content = report.write(made, tmp_path / "r.html", summary=comparison.summary()).read_text("utf-8")
    assert "<dt>Entropy of the lens</dt><dd>Low where it is sure. In nats.</dd>" in content
    del data["lens_entropy_nats"].attrs["description"]
    content = report.write(made, tmp_path / "r.html", summary=comparison.summary()).read_text("utf-8")
    assert "<dd>Entropy of the lens. In nats.</dd>" in content


def test_a_metric_is_defined_once_by_whoever_says_most(comparison, tmp_path):
    data = comparison.data[["rank", "last_change_layer", "correct_probability"]].rename(
        correct_probability="speed"
    )
    data["last_change_layer"].attrs = {"units": "resid_layer", "long_name": "Place where it stays"}
    data["speed"].attrs = {"units": "km/h", "long_name": "How fast it is", "description": "Way by time."}
    made = dataclasses.replace(comparison, data=data, examples=None, features=None)
    content = report.write(made, tmp_path / "r.html", summary=comparison.summary()).read_text("utf-8")
    assert "<dt>How fast it is</dt><dd>Way by time. In km/h.</dd>" in content
    assert "<dd>Place on the residual stream from which on the logit lens" in content


def pooled_page(comparison, folder, rows, pools):
    rows.attrs["pools"] = pools
    content = report.write(comparison, folder / "r.html", summary=rows, figures={}).read_text("utf-8")
    return content[content.index('id="section-summary"') : content.index('id="section-tables"')]


def test_a_pool_that_is_called_like_a_condition_is_still_a_pool(comparison, tmp_path):
    rows = comparison.summary()
    rows = rows[rows["condition"] == "clean"]
    text = pooled_page(comparison, tmp_path, rows, {"clean": ["clean", "contrast@5"]})
    assert "clean is the mean over clean and contrast@5" in text


def test_a_pool_of_one_condition_is_said_once(comparison, tmp_path):
    rows = comparison.summary()
    same = rows[rows["condition"] == "contrast@5"].assign(condition="unseen")
    text = pooled_page(
        comparison, tmp_path, pd.concat([rows, same], ignore_index=True), {"unseen": ["contrast@5"]}
    )
    assert "unseen is contrast@5 alone" in text
    assert ">unseen</a>" not in text
    assert ">contrast@5</a>" in text
    alone = pooled_page(comparison, tmp_path, same, {"unseen": ["contrast@5"]})
    assert ">unseen</a>" in alone


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_a_contrast_of_four_and_a_half_to_one(scheme):
    schemes = re.findall(r":root \{(.*?)\}", asset("report.css"), re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#\w{6});", schemes[0]))
    colors |= dict(re.findall(r"--(\w+): (#\w{6});", schemes[scheme]))
    for text, ground in itertools.product(
        ("ink", "soft", "link", "changed", "equivalent"), ("paper", "band")
    ):
        assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert contrast(colors["edge"], colors["paper"]) >= 3


def contrast(one, other):
    """Of two colors, as WCAG 2 defines it."""

    def luminance(color):
        levels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TRANSFER = (
    *("metric", "exposure", "condition", "checkpoint", "gain", "ci_low", "ci_high", "p_adjusted", "gap"),
    *("gap_closed", "gap_closed_ci_low", "gap_closed_ci_high", "n"),
)


def test_what_a_comparison_holds_besides_is_shown(comparison, tmp_path):
    more = types.SimpleNamespace(
        **{name: getattr(comparison, name) for name in comparison.__dataclass_fields__},
        summary=comparison.summary,
        transfer=pd.DataFrame(
            [dict.fromkeys(TRANSFER, 0.25) | {"metric": "gain", "condition": "<i>", "n": 3}]
        ),
        similarity=pd.DataFrame({"kind": ["vanilla"], "similarity_share": [0.875]}),
        galleries={"Lost & found": made_gallery()},
    )
    content = report.write(more, tmp_path / "r.html", figures={}).read_text(encoding="utf-8")
    assert "<h2>Transfer</h2>" in content
    assert "<td>&lt;i&gt; (0.25)</td>" in content
    features = content[content.index("<h2>Features</h2>") : content.index("<h2>Corruptions</h2>")]
    assert ">0.875</td>" in features
    assert "<h3>Lost &amp; found</h3>" in features
    assert features.count('<details class="exhibit"') == 2
    assert "2 of 768, named; 100 images." in features
    assert "drawn at random from the middle half" in features
    assert '<img class="p0"' in features
    assert ".p0{background-image" in content


def test_a_folder_is_no_place_for_a_page(comparison, tmp_path):
    with pytest.raises(ComparisonError, match="is a folder"):
        report.write(comparison, tmp_path)


@pytest.mark.parametrize(("n", "is_said"), [(99, True), (100, False)])
def test_few_images_are_said_to_be_few(comparison, tmp_path, n, is_said):
    summary = comparison.summary().assign(n=n)
    page = report.write(comparison, tmp_path / "report.html", figures={}, summary=summary)
    assert ("Of 99 images alone" in " ".join(read(page).text)) == is_said


def test_an_empty_summary_still_makes_a_page(comparison, tmp_path):
    empty = pd.DataFrame(columns=comparison.summary().columns)
    less = dataclasses.replace(comparison, data=comparison.data[["rank", "attention_entropy_nats"]])
    assert report.write(less, tmp_path / "r.html", summary=empty).exists()


def test_figures_stand_under_their_headings_and_in_the_contents(page, figures):
    content = page.read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", content)
    sections = list(dict.fromkeys(figure.layout.meta["section"] for figure in figures.values()))
    assert headings == ["Summary", *sections, "Tables", "Provenance"]
    contents = content[content.index("<nav") : content.index("</nav>")]
    for place, (name, figure) in enumerate(figures.items(), start=1):
        target = f"figure-{place}-{name.replace('_', '-')}"
        assert f'<a href="#{target}">{figure.layout.title.text}</a>' in contents
        above = content[: content.index(f'<figure id="{target}"')]
        assert above[above.rindex("<h2>") :].startswith(f"<h2>{figure.layout.meta['section']}</h2>")


def test_a_figure_of_ones_own_stands_where_it_says(comparison, figures, tmp_path):
    mine, said = go.Figure(), go.Figure().update_layout(meta={"section": "Lenses & more", "caption": "Mine."})
    given = {"accuracy": figures["accuracy"], "my_own": mine, "said": said}
    content = report.write(comparison, tmp_path / "r.html", figures=given).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", content)
    mine = ["Accuracy", "Features", "Corruptions", "Further", "Lenses &amp; more"]
    assert headings[1:6] == mine
    assert '<a href="#section-lenses-more">Lenses &amp; more</a>' in content
