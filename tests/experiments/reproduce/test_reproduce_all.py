"""The page of `reproduce all`: what is on it, whether it stands alone, and how a browser takes it."""

import base64
import html.parser
import json
import os
import re
import shutil
import subprocess

import pytest

from experiments import paper
from experiments.cli import main as cli
from experiments.reproduce import page as reproduction_page
from experiments.reproduce.comparison import Comparison
from experiments.reproduce.items import BY_NAME, ITEMS
from tests.paths import ROOT

RESULTS = ROOT / "docs" / "results"
CHROMIUM = os.environ.get("W2V_JAX_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
ABOUT = {
    "command": "w2v-jax reproduce all",
    "commit": "abc",
    "cores": 2,
    "device": "1 x cpu",
    "versions": {"jax": "1"},
    "xla_flags": "",
}
# Counts what a reader would miss, and what went wrong while the page loaded.
PROBE = """<script>
window.wrong = []; window.addEventListener('error', e => wrong.push(String(e.message || e.target.src)), true);
console.error = (...words) => wrong.push(words.join(' '));
window.addEventListener('load', () => {
  document.querySelectorAll('details').forEach(one => one.open = true);
  const images = [...document.images], root = document.documentElement;
  const broken = images.filter(i => !i.complete || !i.naturalWidth).length;
  const told = {wrong, images: images.length, broken,
    tables: document.querySelectorAll('table').length, width: innerWidth, wide: root.scrollWidth,
    hidden: [...document.querySelectorAll('table')].filter(t => !t.getBoundingClientRect().height).length};
  parent.document.title = JSON.stringify(told);
});
</script>"""
# A window cannot be as narrow as a phone; a frame can.
FRAME = """<!doctype html><html><head><title></title><link rel="icon" href="data:,"></head><body>
<iframe style="border: 0; height: 900px; width: {width}px" srcdoc="{page}"></iframe></body></html>"""


class Page(html.parser.HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def text():
    return reproduction_page.page(ITEMS, {item.name: RESULTS / item.name for item in ITEMS}, ABOUT)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def expected_tables() -> int:
    """Two at the top, a comparison for each item, and those of its report."""
    own = [len(re.findall(r"^\|[\s:|-]+\|$", report(name), re.MULTILINE)) for name in BY_NAME]
    return 2 + len(ITEMS) + sum(own)


def report(name: str) -> str:
    return (RESULTS / name / f"{name}.md").read_text()


def test_the_page_needs_nothing_beside_itself(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed")
        for name in ("src", "href"):
            place = attributes.get(name) or "#"
            assert place.startswith(("data:", "#")), (tag, place)
    assert all("@import" not in attributes.get("style", "") for _, attributes in page.tags)


def test_every_picture_of_every_report_is_on_it(page):
    shown = [base64.b64decode(image["src"].split(",", 1)[1]) for image in page.of("img")]
    there = [
        (RESULTS / item.name / name).read_bytes()
        for item in ITEMS
        for name in re.findall(r"!\[.*?\]\((.*?)\)", report(item.name))
    ]
    assert len(there) >= len(ITEMS)
    assert sorted(shown) == sorted(there)
    assert all(image["alt"] for image in page.of("img"))


def test_every_table_of_every_report_is_on_it(page):
    assert len(page.of("table")) == expected_tables()


def test_the_summary_counts_the_values_of_each_item(text):
    rows = re.search(r'<table class="summary">.*?</table>', text, re.DOTALL)
    assert rows is not None
    counts = re.findall(r'href="#(\w+)">[^<]*</a></td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>', rows[0])
    assert [name for name, *_ in counts] == [item.name for item in ITEMS if item.name != "feasibility"]
    shown = {name: cells for name, *cells in counts}
    assert shown["table1"] == ["20", "16", "1.1%"]
    assert all(values.isdigit() and same.isdigit() for values, same, _ in shown.values())


def test_links_lead_somewhere(page):
    targets = {section["id"] for section in page.of("section")}
    links = [link["href"] for link in page.of("a") if link["href"].startswith("#")]
    assert len(links) > len(ITEMS)
    assert {link[1:] for link in links} == targets == set(BY_NAME)


def test_the_verdict_comes_first(text):
    verdicts = json.loads((RESULTS / "feasibility" / "feasibility.json").read_text())["verdicts"]
    assert text.index("Not yet.") < text.index("<nav>")
    opening = text[: text.index("<nav>")]
    for row in verdicts:
        assert row["title"] in html.unescape(opening)
    assert opening.count('<strong class="no">no</strong>') == len(verdicts)
    assert opening.count('<span class="borderline">borderline, ') == 2
    others = [row for row in verdicts if row["device"] != "a40"]
    fast = sum((row["compute"] or 0) >= 1 for row in others)
    assert f"compute: {fast} of {len(others)};" in opening
    assert "The A40 aside, no device meets compute or bytes." in opening
    assert fast == 0


def test_every_printed_cell_stands_beside_ours():
    def compared(name):
        result = json.loads((RESULTS / name / f"{name}.json").read_text())
        return {cell.what: cell for cell in BY_NAME[name].compare(result)}

    one = compared("table1")
    assert len(one) == 16 + 4
    assert one["base, total, million parameters"].paper == 94.79
    assert one["base, transformer, forward GFLOPs"].difference == "as printed"
    assert one["large, total, forward GFLOPs"].difference == "+0.0%"
    two = compared("table2")
    printed = [cell for cells in paper.TABLE_2.values() for cell in cells]
    assert len(two) == len(printed) + len(paper.SEQUENCE_GAINS)
    gone = [cell.difference for cell in two.values() if cell.paper == paper.OOM]
    assert (gone.count("as printed"), gone.count("inside the plan's error"), len(gone)) == (3, 4, 7)
    assert [cell.paper for cell in compared("fig2").values()] == [2.54] * 6 + [9.89] * 6


@pytest.mark.parametrize(
    ("cell", "difference"),
    [
        (Comparison("x", 2.0, 3.0), "+50.0%"),
        (Comparison("x", 2.0, 1.999), "as printed"),
        (Comparison("x", paper.OOM, "fits"), "differs"),
        (Comparison("x", 2.0, paper.OOM), "differs"),
        (Comparison("x", 1.0, 1.0, verdict="calibrates the model"), "calibrates the model"),
    ],
)
def test_differences_are_worked_out(cell, difference):
    assert cell.difference == difference


def test_words_in_results_are_not_markup(tmp_path):
    """Titles, commands and meanings come from files."""
    folder = tmp_path / "feasibility"
    shutil.copytree(RESULTS / "feasibility", folder)
    result = json.loads((folder / "feasibility.json").read_text())
    result["verdicts"][1]["title"] = "<b>board</b>"
    result["provenance"]["command"] = "<i>command</i>"
    (folder / "feasibility.json").write_text(json.dumps(result))
    text = reproduction_page.page([BY_NAME["feasibility"]], {"feasibility": folder}, ABOUT)
    assert "&lt;b&gt;board" in text
    assert "&lt;i&gt;command" in text
    assert not re.search("<[bi]>", text)
    assert reproduction_page.with_code("<a> `b<c`") == "&lt;a&gt; <code>b&lt;c</code>"


def test_a_report_is_text_whoever_wrote_it():
    text = reproduction_page.report_html("# T\n\n<script>alert(1)</script> [a](../b.md) [c](https://d)\n")
    assert "<script>" not in text
    assert 'href="../b.md"' not in text
    assert 'href="https://d"' in text


def test_figure_2_says_only_what_was_priced():
    """`reproduce fig2 --no-compiled` has no plan of XLA's, and another accounting may come closest."""
    result = json.loads((RESULTS / "fig2" / "fig2.json").read_text())
    words = BY_NAME["fig2"].meaning(result)
    assert "XLA plans it" in words
    assert "left attention's matrices out" in words
    for setting in result["settings"]:
        del setting["accountings"]["xla"]
    result["closest"]["name"] = "autograd"
    words = BY_NAME["fig2"].meaning(result)
    assert "XLA" not in words
    assert "matrices" not in words


def test_figure_5_takes_the_rule_of_its_own_report():
    """Its report shows no difference in any of the paper's directions, by intervals for 58 comparisons."""
    result = json.loads((RESULTS / "fig5" / "fig5.json").read_text())
    rows = BY_NAME["fig5"].compare(result)
    assert len(rows) == 12
    assert {row.verdict for row in rows} == {"no difference shown"}
    words = BY_NAME["fig5"].meaning(result)
    assert "0 are shown in the paper's direction and 0 in the other" in words
    assert "for 58 comparisons together; for 12 no difference is shown" in words
    assert "It is a toy" in words


def test_what_was_not_run_says_what_it_needs():
    folders = {"feasibility": RESULTS / "feasibility"}
    text = reproduction_page.page([BY_NAME["feasibility"], BY_NAME["fig5"]], folders, ABOUT)
    assert "recorded speech" in text
    assert "w2v-jax reproduce fig5 --out FOLDER" in text


def test_the_command_runs_what_is_missing_and_keeps_what_is_finished(tmp_path, capfd):
    out = tmp_path / "all"
    words = ["reproduce", "all", "--out", str(out), "--items", "table1"]
    words += ["--finished", str(RESULTS / "feasibility"), str(RESULTS / "fig5")]
    assert cli.main(words) == 0
    assert "cell 1/1 table1" in capfd.readouterr().out
    made = json.loads((out / "items" / "table1" / "table1.json").read_text())
    text = (out / "index.html").read_text()
    assert f"commit {made['provenance']['commit']}" in text
    assert "Not run here" in text.split('id="fig1"')[1]
    assert "Not run here" not in text.split('id="fig5"')[1]
    assert cli.main(words) == 0
    assert "1 of them finished before" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--items", "tabel1"], "did you mean table1?"),
        (["--items", "fig5"], "--items fig5 needs recorded speech"),
        (["--finished", "nowhere"], "--finished nowhere holds no results"),
        (["--jobs", "0"], "--jobs must be between"),
    ],
)
def test_mistakes_are_said_in_a_line(words, expected, tmp_path, capfd):
    assert cli.main(["reproduce", "all", "--out", str(tmp_path / "all"), *words]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "all").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (W2V_JAX_CHROMIUM names one)")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_all_of_it_on_a_phone_and_on_a_laptop(text, width, tmp_path):
    assert CHROMIUM is not None
    path = tmp_path / "page.html"
    probed = text.replace("</style>", f"</style>{PROBE}", 1)
    path.write_text(FRAME.format(width=width, page=html.escape(probed)))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000",
            "--window-size=1400,1000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    told = json.loads(html.unescape(title[1]))
    assert told["wrong"] == []
    assert told["broken"] == 0
    assert told["images"] == sum(len(reproduction_page.pictures(report(name))) for name in BY_NAME)
    assert told["tables"] == expected_tables()
    assert told["hidden"] == 0
    assert told["wide"] <= told["width"] == width, told
