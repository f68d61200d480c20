"""What a comparison gives to papers and notebooks: LaTeX, images, HTML."""

import html.parser
import importlib.util
import re
import sys

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
import xarray as xr

from vitlens.comparison import Comparison, exporting
from vitlens.comparison.latex import to_latex
from vitlens.errors import ComparisonError

NASTY = r"<script>alert(1)</script> 50% & $x_1$ #{~^\}"


def made(names=("base", "tuned"), conditions=("clean", "fog@3"), n=40):
    rng = np.random.default_rng(0)
    cells = (len(names), len(conditions), n)
    probability = rng.random(cells)
    probability[1:] += 0.5
    dims = ("checkpoint", "condition", "image")
    return Comparison(
        data=xr.Dataset(
            {
                "rank": (dims, rng.integers(0, 3, cells)),
                "correct_probability": (dims, probability),
                "own_measure": (dims, rng.random(cells)),
                "attention_entropy_nats": (
                    (*dims, "layer", "head", "query_kind"), rng.random((*cells, 2, 2, 1))
                ),
            },
            coords={
                "checkpoint": list(names), "condition": list(conditions), "image": [f"{i}" for i in range(n)],
                "layer": [0, 1], "head": [0, 1], "query_kind": ["cls"],
            },
        ),
        reference=names[0],
        n_classes=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def summary():
    return made().summary(margins={"top1_accuracy": 0.9})


def cells_of(text):
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
        for line in body.strip().splitlines()
        if line
    ]


def test_each_scalar_row_stands_in_the_table(summary):
    rows = summary[summary["layer"].isna()]
    cells = cells_of(to_latex(summary))
    assert len(cells) == len(rows)
    for row, cell in zip(rows.itertuples(), cells, strict=True):
        assert cell[1:3] == [row.condition, row.checkpoint]
        assert [float(each) for each in cell[3:5]] == pytest.approx(
            [row.value_reference, row.value], abs=6e-4
        )
        difference, mark = re.fullmatch(r"\$([+-][\d.]+)(?:\^\{(.)\})?\$", cell[5]).groups()
        assert float(difference) == pytest.approx(row.difference, abs=6e-4)
        assert mark == {"changed": "*", "equivalent": "=", "undecided": None}[row.verdict]
        low, high = re.fullmatch(r"\$\[(.*), (.*)\]\$", cell[6]).groups()
        assert (float(low), float(high)) == pytest.approx((row.ci_low, row.ci_high), abs=6e-4)
    assert [cell[0] for cell in cells if cell[0]] == ["Top-1 accuracy", "Correct probability", "Own measure"]


def test_the_caption_says_how_to_read_it(summary):
    text = to_latex(summary, label="tab:what")
    assert "paired over 40 images" in text
    assert r"95\,\% intervals" in text
    assert r"$^{*}$ changed: adjusted $p < .05$." in text
    assert r"equivalent within the margin given beforehand (Top-1 accuracy $\pm 0.9$)" in text
    assert r"\label{tab:what}" in text
    assert r"\caption{Mine, \emph{as it is}}" in to_latex(summary, caption=r"Mine, \emph{as it is}")


def test_metrics_are_chosen_and_maps_are_shown_when_asked_for(summary):
    cells = cells_of(to_latex(summary, metrics=["own_measure", "top1_accuracy"], digits=1))
    assert [cell[0] for cell in cells] == ["Own measure", "", "Top-1 accuracy", ""]
    assert all(re.fullmatch(r"\d\.\d", cell[3]) for cell in cells)
    mapped = cells_of(to_latex(summary, metrics=["attention_entropy_nats[cls]"], maps=True))
    assert [cell[3:5] for cell in mapped][:4] == [["0", "0"], ["0", "1"], ["1", "0"], ["1", "1"]]
    assert mapped[0][0] == "Attention entropy (class token)"


def test_different_numbers_of_images_get_a_column_of_their_own(summary):
    some = summary.copy()
    some.loc[some.index[0], "n"] = 39
    text = to_latex(some)
    assert "39 to 40 images" in text
    assert [cell[-1] for cell in cells_of(text)][:2] == ["39", "40"]


def unescaped(text):
    """What LaTeX would read as a command or a special sign, in text."""
    known = r"\\text(?:backslash|asciitilde|asciicircum|less|greater|bar)\{\}"
    return re.sub(rf"{known}|\\[&%$#_{{}}]", "", text)


def test_names_cannot_break_the_table():
    text = to_latex(made(("a\nb\\", NASTY), ("clean", NASTY)).summary())
    for line in text.splitlines():
        if line.endswith(r"\\") and "&" in line:
            assert line.count("&") - line.count(r"\&") == 7
            for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))[:3]:
                assert not re.search(r"[\\&%$#_{}~^]", unescaped(cell)), cell
    assert '"' not in text  # \\textquotedbl is none of LaTeX's old encoding's
    assert "textquotedbl" not in text
    plain = unescaped(text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    environments = re.findall(r"\\(?:begin|end)\{(\w+)\}", text)
    assert environments == ["table", "tabular", "tabular", "table"]


def test_what_has_no_value_is_a_dash(summary):
    some = summary[summary["metric"] == "top1_accuracy"].copy()
    some[["difference", "ci_low", "p_adjusted"]] = np.nan
    assert cells_of(to_latex(some))[0][5:] == ["--", "--", "--"]


def test_the_table_is_written_too(summary, tmp_path):
    assert to_latex(summary, tmp_path / "table.tex") == (tmp_path / "table.tex").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("summary", "options", "message"),
    [
        (pd.DataFrame({"metric": []}), {}, "no column 'condition'.*comparison.summary"),
        (made().summary().iloc[:0], {}, "no row to show"),
        (made().summary(), {"metrics": ["top2_accuracy"]}, "names 'top2_accuracy'.*Nearest: 'top1_accuracy'"),
    ],
)
def test_what_is_no_summary_is_refused(summary, options, message):
    with pytest.raises(ComparisonError, match=message):
        to_latex(summary, **options)


class Reader(html.parser.HTMLParser):
    """The tags of a page, and whether they close."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader.tags, " ".join("".join(reader.text).split())


def test_a_notebook_shows_what_was_compared_and_how_it_ended():
    _, text = read(made()._repr_html_())
    assert text.startswith("tuned against base; 40 images; clean, fog@3Of 4 tested differences: ")
    assert "2 changed" in text
    assert "correct_probability" in text
    assert "attention_entropy" not in text  # a map
    assert "report(" in text


def test_a_notebook_shows_what_was_tested_first_and_says_what_is_left():
    many = made(conditions=[f"mine {place}" for place in range(20)])
    page = many._repr_html_()
    _, text = read(page)
    assert "36 more rows" in text
    assert page.count("<tr") == 25
    assert "20 conditions (mine 0, mine 1" in text


def test_names_are_harmless_in_a_notebook():
    nasty = made((NASTY, "<b>tuned</b>"), ("clean", "<img src=x>"))
    tags, text = read(nasty._repr_html_())
    assert not tags & {"script", "img", "b"}
    assert "<script>alert(1)</script>" in text


def test_one_line_says_what_a_comparison_is():
    assert repr(made()) == "Comparison(tuned against base; 40 images; clean, fog@3)"


@pytest.fixture
def kaleido(monkeypatch):
    """Plotly's writing, with what it was asked for in place of images."""
    asked = []

    def write_images(fig, file, width, height, scale):
        for figure, path, *size in zip(fig, file, width, height, scale, strict=True):
            asked.append((figure, path.name, *size))
            path.write_text(f"{path.suffix} of {figure.layout.title.text}")

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: name == "kaleido" or find(name, *at))
    monkeypatch.setattr(plotly.io, "write_images", write_images)
    return asked


def figures():
    own = go.Figure(layout={"title": "A", "meta": {"min_width_px": 900.4}})
    return {"accuracy": own, "rank[cls]/x": go.Figure(layout={"title": "B", "width": 300, "height": 200})}


def test_every_figure_is_written_in_every_format(kaleido, tmp_path):
    paths = exporting.export(figures(), tmp_path / "new" / "figures", ("svg", "png"), scale=3)
    names = ["accuracy.svg", "accuracy.png", "rank_cls_x.svg", "rank_cls_x.png"]
    assert [path.name for path in paths] == names
    assert [path.read_text() for path in paths] == [".svg of A", ".png of A", ".svg of B", ".png of B"]
    assert sorted(path.name for path in (tmp_path / "new" / "figures").iterdir()) == sorted(names)
    assert [each[2:] for each in kaleido] == [(900, 480, 1), (900, 480, 3), (300, 200, 1), (300, 200, 3)]


def test_names_that_files_cannot_tell_apart_are_counted(kaleido, tmp_path):
    same = dict.fromkeys(("a b", "a/b", "A_B", "..", "é"), go.Figure())
    names = [path.name for path in exporting.export(same, tmp_path, ["pdf"])]
    assert names == ["a_b.pdf", "a_b_2.pdf", "A_B_3.pdf", "figure.pdf", "figure_2.pdf"]


def test_a_comparison_exports_the_figures_that_it_is_given(kaleido, tmp_path):
    paths = made().export(tmp_path, ["svg"], figures=figures())
    assert [path.name for path in paths] == ["accuracy.svg", "rank_cls_x.svg"]


def test_a_missing_browser_is_said_and_leaves_no_file(kaleido, tmp_path, monkeypatch):
    def missing(**_):
        raise RuntimeError("\n\nKaleido requires Google Chrome to be installed.\n")

    monkeypatch.setattr(plotly.io, "write_images", missing)
    with pytest.raises(ComparisonError, match=r"requires Google Chrome.*plotly_get_chrome"):
        exporting.export(figures(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["svg", "gif"]}, r"formats is \['svg', 'gif'\].*svg, pdf, png"),
        ({"formats": ["svg", "svg"]}, "each once"),
        ({"formats": "svg"}, "formats is 'svg'"),
        ({"scale": 0.0}, "scale is 0"),
    ],
)
def test_other_formats_are_refused_before_anything_is_drawn(kaleido, tmp_path, options, message):
    with pytest.raises(ComparisonError, match=message):
        made().export(tmp_path, **options)


def test_without_kaleido_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(
        ComparisonError, match=r'kaleido, which is not installed.*pip install "vitlens\[export\]"'
    ):
        made().export(tmp_path)


def test_images_are_drawn_by_kaleido_itself(tmp_path):
    pytest.importorskip("kaleido", reason="kaleido is not installed: no figure can be drawn as an image")
    try:
        paths = exporting.export(figures(), tmp_path, ("svg", "pdf", "png"))
    except ComparisonError as error:
        pytest.skip(str(error))
    starts = {".svg": b"<svg", ".pdf": b"%PDF", ".png": b"\x89PNG"}
    assert len(paths) == 6
    for path in paths:
        assert path.read_bytes().startswith(starts[path.suffix])
