"""The page of `reproduce all`: a verdict, then item by item, in one HTML file that needs no network."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import paper
from experiments.costs.devices.costs import REFERENCE
from experiments.feasibility import report as feasibility_report
from experiments.process.files import read_json
from experiments.reproduce.comparison import Item

TITLE = "Are we there yet? The paper, item by item"
STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fff; --soft: #f2f4f7; --line: #d5dae1;
  --yes: #11632f; --yes-soft: #dcf3e3; --no: #9b1c1c; --no-soft: #fbe3e3; --unknown: #5b6472; --link: #1a56a8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14181f; --soft: #1e242d; --line: #38414e;
  --yes: #8fe0a8; --yes-soft: #173823; --no: #f5a3a3; --no-soft: #431c1c; --unknown: #a5aebb; --link: #86b7f5 } }
* { box-sizing: border-box }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 }
main { max-width: 72rem; margin: 0 auto; padding: 1rem 1.25rem 4rem }
h1 { font-size: clamp(1.7rem, 5vw, 2.6rem); line-height: 1.15; margin: 1.2rem 0 .3rem }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
p { max-width: 48rem } .lead { font-size: 1.15rem } small, .small { font-size: .85rem; color: var(--unknown) }
a { color: var(--link) }
nav { display: flex; flex-wrap: wrap; gap: .4rem .6rem; margin: 1rem 0 }
nav a { background: var(--soft); border-radius: 1rem; padding: .15rem .7rem; text-decoration: none; font-size: .9rem }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: .5rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line) }
thead th { background: var(--soft); border-top: 0 }
.verdict span { border-radius: .25rem; padding: .05rem .35rem; white-space: nowrap }
.verdict td:first-child, .verdict th:first-child { position: sticky; left: 0 }
.verdict td:first-child { background: var(--paper) }
.verdict thead th { white-space: nowrap; background: var(--soft) }
.verdict td, .verdict th { padding: .35rem .45rem } .verdict td:first-child { min-width: 7.5rem } .figure { max-width: none }
.yes { color: var(--yes); background: var(--yes-soft) } .no { color: var(--no); background: var(--no-soft) }
.unknown { color: var(--unknown) }
img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem }
code { background: var(--soft); padding: .1rem .3rem; border-radius: .25rem; overflow-wrap: anywhere }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; border-radius: .5rem } pre code { padding: 0 }
details { border: 1px solid var(--line); border-radius: .5rem; padding: .2rem .9rem; margin: 1rem 0 }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600 }
"""


PICTURE = r"!\[[^\]]*\]\(([\w.-]+\.png)\)\n?"


class Found(NamedTuple):
    """An item that was reproduced.

    Attributes:
        item: it.
        folder: with its JSON, Markdown and pictures.
    """

    item: Item
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        return read_json(self.folder / f"{self.item.name}.json")

    @property
    def report(self) -> str:
        return (self.folder / f"{self.item.name}.md").read_text(encoding="utf-8")


def page(items: Sequence[Item], folders: Mapping[str, Path], about: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        items: all of them, in order; those without a folder get a note on what they need.
        folders: where the results of an item lie, by its name; feasibility is among them.
        about: provenance of the command that makes the page.
    """
    found = {item.name: Found(item, folders[item.name]) for item in items if item.name in folders}
    sections = [
        section(found[item.name]) if item.name in found else missing(item)
        for item in items
        if item.name != "feasibility"
    ]
    links = "".join(f'<a href="#{item.name}">{html.escape(item.title.split(":")[0])}</a>' for item in items)
    body = "\n".join(
        [
            *opening(found["feasibility"]),
            f"<nav>{links}</nav>",
            summary([one for one in found.values() if one.item.name != "feasibility"]),
            section(found["feasibility"]),
            *sections,
            footer(about),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def opening(feasibility: Found) -> list[str]:
    """The verdict, board by board."""
    judged = feasibility.result["verdicts"]
    there = [row["title"] for row in judged if feasibility_report.overall(row) == "yes"]
    answer = f"Yes: {', '.join(there)}." if there else "Not yet."
    measured = [row for row in judged if row["device"] != REFERENCE]
    counted = {name: feasibility_report.meeting(measured, name) for name in feasibility_report.CRITERIA}
    alone = " Bytes alone decide it: no device has enough." if not counted["bytes"] else ""
    names = "; ".join(
        f"{title}: {counted[name]} of {len(measured)}" for name, title in feasibility_report.CRITERIA.items()
    )
    head = ["Device", "there?", *feasibility_report.CRITERIA.values()]
    rows = [
        [
            html.escape(row["title"]),
            _plain_verdict(feasibility_report.overall(row)),
            *(_verdict_cell(row[name]) for name in feasibility_report.CRITERIA),
        ]
        for row in judged
    ]
    return [
        "<h1>Are we there yet?</h1>",
        f'<p class="lead"><strong>{html.escape(answer)}</strong> The paper (Gao et al., <em>Federated Self-supervised Speech '
        "Representations: Are We There Yet?</em>, Interspeech 2022) expected wav2vec 2.0 pre-training on devices not before "
        f"{paper.PREDICTED_YEAR}. Devices that meet each criterion today, beside the A40, which is the measure of two: {html.escape(names)}.{alone}</p>",
        table(head, rows, "verdict"),
        '<p class="small">A number is what there is over what it takes: 1 or more is a yes. Compute: as fast as an A40. Memory: base, batch 8 x 12 s, '
        "by compilers' plans; plain, with layers computed again, and by every exact method. Bytes: no more than the client's audio. Energy: no more than an A40's.</p>",
    ]


def _verdict_cell(ratio: float | None) -> str:
    said = feasibility_report.said(ratio)
    return f'<span class="{said.split(",")[0]}">{html.escape(said)}</span>'


def _plain_verdict(answer: str) -> str:
    return f'<strong class="{answer}">{answer}</strong>'


def summary(found: Sequence[Found]) -> str:
    """How many values of each item come out as printed."""
    rows = []
    for one in found:
        comparisons = one.item.compare(one.result)
        same = sum(cell.difference in ("as printed", "agrees") for cell in comparisons)
        numbers = [
            abs(cell.ours / cell.paper - 1)
            for cell in comparisons
            if isinstance(cell.ours, float | int)
            and isinstance(cell.paper, float | int)
            and cell.verdict is None
        ]
        largest = f"{max(numbers):.1%}" if numbers else "-"
        link = f'<a href="#{one.item.name}">{html.escape(one.item.title)}</a>'
        rows.append([link, str(len(comparisons)), str(same), largest])
    return "<h2>The paper's values beside ours</h2>" + table(
        ["", "values", "as printed, or its words hold", "largest difference of numbers"], rows, "summary"
    )


def section(found: Found) -> str:
    """An item: what it means, values side by side, pictures, the whole report folded."""
    item, result = found.item, found.result
    made = result["provenance"]
    rows = [
        [
            html.escape(cell.what),
            html.escape(cell.shown(cell.paper)),
            html.escape(cell.shown(cell.ours)),
            html.escape(cell.difference),
        ]
        for cell in item.compare(result)
    ]
    title = "Why: what the verdict rests on" if item.name == "feasibility" else item.title
    return "\n".join(
        [
            f'<section id="{item.name}"><h2>{html.escape(title)}</h2>',
            f"<p>{_with_code(item.meaning(result))}</p>",
            table(["", "the paper", "here", "difference"], rows, "comparison"),
            *(image(found.folder / name, item.title) for name in pictures(found.report)),
            f"<p class='small'><code>{html.escape(made['command'])}</code>, commit {html.escape(made['commit'])}, "
            f"{html.escape(str(made['cores']))} cores, {html.escape(made['device'])}</p>",
            f"<details><summary>The whole report</summary>{report_html(found.report)}</details>",
            "</section>",
        ]
    )


def _with_code(text: str) -> str:
    """Escaped, with `words` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def missing(item: Item) -> str:
    """An item that was not run."""
    return (
        f'<section id="{item.name}"><h2>{html.escape(item.title)}</h2>'
        f"<p>Not run here: it needs {html.escape(item.needs or 'its command')}. "
        f"<code>w2v-jax {' '.join(item.words)} --out FOLDER</code> runs it, and "
        "<code>w2v-jax reproduce all --finished FOLDER</code> takes its results in.</p></section>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    """An HTML table in a box that scrolls by itself; cells are HTML already."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pictures(report: str) -> list[str]:
    """Names of a report's pictures, in order."""
    return re.findall(PICTURE, report)


def image(path: Path, title: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p class="figure"><img alt="{html.escape(title)}: {path.stem}" src="data:image/png;base64,{data}"></p>'


def report_html(report: str) -> str:
    """A Markdown report without its title and its pictures; wide tables scroll."""
    from markdown_it import MarkdownIt

    text = re.sub(r"^# .*\n", "", report)
    text = re.sub(PICTURE, "", text)
    # What a report says is text, whoever wrote it; its links lead to files that are not in the page.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r'<a href="(?!https?:|#)[^"]*">(.*?)</a>', r"\1", body)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return re.sub(r"<(/?)h2>", r"<\1h3>", body)


def footer(about: Mapping[str, Any]) -> str:
    """How the page came about."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        "<h2>How this page came about</h2>"
        f"<p><code>{html.escape(about['command'])}</code>, commit {html.escape(about['commit'])}, {about['cores']} cores, "
        f"{html.escape(about['device'])}, {html.escape(versions)}, <code>{html.escape(about['xla_flags'])}</code></p>"
        "<p class='small'>Every number here comes from a command that stands beside it. What the paper does not print is not guessed.</p>"
    )
