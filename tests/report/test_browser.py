"""The page in a browser: silent, offline, and all its controls at work, on a phone and on a desktop."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from vitlens import report

from .made import made_comparison

EVIL = "<script>alert(1)</script>"
LONG = EVIL + "_trained_on_all_of_the_corruptions" * 2
WIDTHS = {"phone": 390, "desktop": 1280}


@pytest.fixture(scope="module")
def comparison():
    """Small, and with a checkpoint and classes whose names are markup."""
    classes = [f"{EVIL}{index}" for index in range(10)]
    conditions = ("clean", "gaussian_blur@3", "contrast@5")
    made = made_comparison(
        ("base", "tuned", LONG), conditions, n_images=60, class_names=classes, n_examples=1
    )
    made.data["entropy_nats"].attrs["long_name"] = "A title of a good many words " * 4
    return made


@pytest.fixture(scope="module")
def path(comparison, tmp_path_factory):
    return report.write(comparison, tmp_path_factory.mktemp("browser") / "report.html")


def until(page, expression):
    """Wait for what is soon true; the page's own policy forbids the browser's way of waiting."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


class Visit:
    """A page with what it said and asked for."""

    def __init__(self, context, path):
        self.said, self.asked = [], []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        until(self.page, "document.querySelectorAll('.plot .main-svg').length > 0")


@pytest.fixture(scope="module", params=WIDTHS)
def visit(request, browser, path):
    context = browser.new_context(
        viewport={"width": WIDTHS[request.param], "height": 900}, accept_downloads=True
    )
    context.set_offline(True)
    yield Visit(context, path)
    context.close()


@pytest.fixture
def page(visit):
    """The page as it first stands."""
    visit.page.evaluate("location.hash = ''")
    return visit.page


def column(page, table, name):
    """What a column of a table says to sort by, of the rows that are seen."""
    return page.evaluate(
        """([table, name]) => {
            const found = document.querySelector(`#${table} table`);
            const at = [...found.tHead.rows[0].cells].findIndex((cell) => cell.textContent.trim() === name);
            return [...found.tBodies[0].rows].filter((row) => !row.hidden)
                .map((row) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim());
        }""",
        [table, name],
    )


def test_the_console_is_silent_and_nothing_is_asked_of_the_network(visit):
    visit.page.mouse.wheel(0, 4000)
    visit.page.wait_for_timeout(200)
    assert visit.said == []
    assert [url for url in visit.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_no_name_is_run_as_a_script(visit):
    assert not any(said == "1" for said in visit.said)
    assert visit.page.evaluate("document.querySelectorAll('main script').length") == 0
    assert EVIL in visit.page.inner_text("main")


def test_the_page_itself_never_scrolls_sideways(page):
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = false; })")
    assert width <= window


def test_a_table_sorts_by_a_click_and_by_a_key(page):
    button = page.locator("#summary-table th button", has_text="difference")
    head = page.locator("#summary-table th", has_text="difference")
    before = column(page, "summary-table", "difference")
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [float(value) for value in column(page, "summary-table", "difference")]
    assert rising == sorted(map(float, before))
    button.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(value) for value in column(page, "summary-table", "difference")] == rising[::-1]


def test_the_last_column_sorts_too(page):
    page.locator("#summary-table th button").last.click()
    n = [float(value) for value in column(page, "summary-table", "n")]
    assert n == sorted(n)
    assert page.locator("#summary-table thead th").last.get_attribute("aria-sort") == "ascending"


def test_what_has_no_value_stands_last_whichever_the_way(page):
    button = page.locator("#summary-table th button", has_text="adjusted p")
    for _ in range(2):
        button.click()
        p = column(page, "summary-table", "adjusted p")
        known = [value != "" for value in p]
        assert False in known
        assert known == sorted(known, reverse=True)


def test_a_table_filters_by_words_metric_and_verdict(page, comparison):
    rows = comparison.summary()
    rows = rows[rows["layer"].isna()]
    form = page.locator("form[data-table=summary-table]")
    form.locator("select[data-filter=metric]").select_option("Top-1 accuracy")
    form.locator("select[data-filter=verdict]").select_option("undecided")
    wanted = (rows["metric"] == "top1_accuracy") & (rows["verdict"] == "undecided")
    assert len(column(page, "summary-table", "verdict")) == wanted.sum() > 0
    form.locator("input").fill("CONTRAST tuned")
    wanted &= (rows["condition"] == "contrast@5") & (rows["checkpoint"] == "tuned")
    assert len(column(page, "summary-table", "verdict")) == wanted.sum()
    assert form.locator("output").inner_text() == f"{wanted.sum()} of {len(rows)} rows"
    form.evaluate("form => { form.reset(); form.dispatchEvent(new Event('input')); }")
    assert len(column(page, "summary-table", "verdict")) == len(rows)


def test_a_link_of_the_summary_leads_to_its_figure(page):
    link = page.locator("#section-summary a.to-figure").first
    target = link.get_attribute("href")
    link.click()
    assert page.evaluate("location.hash") == target
    page.wait_for_timeout(900)  # the way there is smooth
    top, window = page.evaluate(
        f"[document.querySelector('{target}').getBoundingClientRect().top, innerHeight]"
    )
    assert -1 <= top < window


def test_a_link_to_a_row_shows_it_again_where_it_is_filtered_away(page):
    form = page.locator("form[data-table=summary-table]")
    form.locator("input").fill("no such word")
    assert column(page, "summary-table", "verdict") == []
    target = page.locator("#section-summary a[href^='#row-']").first.get_attribute("href")
    page.evaluate(f"location.hash = '{target}'")
    until(page, f"!document.querySelector('{target}').hidden")
    assert form.locator("input").input_value() == ""


def test_the_first_key_leads_past_the_contents(page):
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_legend_hides_and_shows_a_trace(page):
    figure = page.locator("#figure-1-accuracy")
    figure.scroll_into_view_if_needed()
    seen = "document.querySelector('#figure-1-accuracy-plot')._fullData.map((trace) => trace.visible)"
    assert set(page.evaluate(seen)) == {True}
    for wanted in ("legendonly", True):
        figure.locator(".legendtoggle").first.click()
        until(page, f"({seen})[0] === {'true' if wanted is True else repr(wanted)}")


def test_a_figures_controls_choose_its_condition(page, comparison):
    figure = page.locator("figure", has=page.locator("[id$=attention-entropy-plot]"))
    figure.locator(".choices label", has_text="Condition").locator("select").select_option("contrast@5")
    z = figure.locator(".plot").evaluate("plot => plot._fullData[0].z.map((row) => [...row])")
    entropy = comparison.data["attention_entropy_nats"].sel(
        checkpoint="base", condition="contrast@5", query_kind="cls"
    )
    np.testing.assert_allclose(z, entropy.mean("image"), rtol=1e-3)
    figure.locator(".choices label", has_text="Condition").locator("select").select_option("clean")


def saved(page, button):
    with page.expect_download() as download:
        button.click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    return download.value.suggested_filename, list(csv.DictReader(io.StringIO(text)))


def test_a_figures_numbers_are_saved_as_they_are(page, comparison):
    name, rows = saved(page, page.locator("#figure-1-accuracy .save-data"))
    assert name == "figure-1-accuracy.csv"
    top1 = [row for row in rows if row["panel"] == "Top-1"]
    share = 100 * (comparison.data["rank"] == 0).mean("image")
    assert len(top1) == share.size
    for row in top1:
        wanted = share.sel(condition=row["condition"], checkpoint=row["checkpoint"]).item()
        assert float(row["value"]) == pytest.approx(wanted, rel=1e-5)


def test_a_figure_that_keeps_no_rows_saves_what_it_draws(page, comparison):
    _, rows = saved(page, page.locator("figure", has_text="Attention maps").locator(".save-data"))
    maps = comparison.examples["attention_map"].isel(layer=-1, image=0).sel(condition="clean").mean("head")
    for checkpoint in comparison.data["checkpoint"].values:
        here = [float(row["z"]) for row in rows if row["trace"] == checkpoint]
        wanted = 100 * maps.sel(checkpoint=checkpoint).values
        np.testing.assert_allclose(here, wanted.ravel(), atol=0.06)


def test_all_rows_of_the_summary_are_saved(page, comparison):
    name, rows = saved(page, page.locator(".save-summary"))
    summary = comparison.summary()
    assert name == "summary.csv"
    assert list(rows[0]) == list(summary.columns)
    np.testing.assert_allclose([float(row["difference"]) for row in rows], summary["difference"], rtol=1e-5)


def test_dark_and_print_change_the_page_and_its_figures(page):
    window = page.viewport_size

    def colors():
        return page.evaluate(
            """[getComputedStyle(document.body).backgroundColor,
                document.querySelector('.plot')._fullLayout.font.color]"""
        )

    light = colors()
    page.emulate_media(color_scheme="dark")
    until(page, f"document.querySelector('.plot')._fullLayout.font.color !== '{light[1]}'")
    assert all(dark != bright for dark, bright in zip(colors(), light, strict=True))
    page.emulate_media(color_scheme="light", media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".filters").first.is_visible()
    assert page.locator(".choices select").first.is_visible()  # or one would not know what is shown
    assert page.evaluate("document.querySelector('.plot')._fullLayout.width") == 680
    page.set_viewport_size({"width": 680, "height": 900})
    reach = (
        "[...document.querySelectorAll('#summary-table table, h3')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(page.evaluate(reach)) <= 680
    width = "Math.max(...[...document.querySelectorAll('.plot')].map(e => e.getBoundingClientRect().right))"
    assert page.evaluate(width) <= 681
    page.set_viewport_size(window)
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert colors() == light


def test_without_scripts_the_words_and_tables_are_there_and_no_dead_controls(browser, path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("#summary-table tbody tr").first.is_visible()
    assert page.locator("#section-summary .finding").first.is_visible()
    assert not page.locator("form.filters").first.is_visible()
    assert not page.locator(".save-data").first.is_visible()
    context.close()
