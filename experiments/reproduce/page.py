"""Make the page of `reproduce all`: a verdict, then item by item, in one HTML file that needs no network."""

import dataclasses
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from experiments import paper
from experiments.costs.devices.records import REFERENCE
from experiments.feasibility import verdicts
from experiments.process.files import read_json
from experiments.report.page import picture_data, render
from experiments.reproduce.comparison import Item

TITLE = "Are we there yet? The paper, item by item"
FEASIBILITY = "feasibility"
PICTURE = r"!\[[^\]]*\]\(([\w.-]+\.png)\)\n?"


@dataclasses.dataclass(frozen=True)
class Found:
    """An item that was reproduced.

    Attributes:
        item: the item.
        folder: folder with its JSON, Markdown and pictures.
        result: its JSON.
        report: its Markdown.
    """

    item: Item
    folder: Path
    result: dict[str, Any]
    report: str


def read_item(item: Item, folder: Path) -> Found:
    """Read the results of an item."""
    report = (folder / f"{item.name}.md").read_text(encoding="utf-8")
    return Found(item, folder, read_json(folder / f"{item.name}.json"), report)


def page(items: Sequence[Item], folders: Mapping[str, Path], about: Mapping[str, Any]) -> str:
    """Make the whole page.

    Args:
        items: all of them, in order; those without a folder get a note on what they need.
        folders: item name -> folder with its results; feasibility is among them.
        about: provenance of the command that makes the page.
    """
    found = {item.name: read_item(item, folders[item.name]) for item in items if item.name in folders}
    others = [item for item in items if item.name != FEASIBILITY]
    return render(
        "reproduction.html.j2",
        title=TITLE,
        **opening(found[FEASIBILITY].result),
        links=[{"name": item.name, "title": item.title.split(":")[0]} for item in items],
        summary=[summary(found[item.name]) for item in others if item.name in found],
        sections=[
            section(found[FEASIBILITY], "Why: what the verdict rests on"),
            *(section(found[item.name]) if item.name in found else missing(item) for item in others),
        ],
        about=about,
        versions=", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    )


def opening(result: dict[str, Any]) -> dict[str, Any]:
    """Give the template the verdict, device by device, from feasibility.json."""
    devices = verdicts.verdicts_of(result)
    there = [device.title for device in devices if verdicts.overall(device) == "yes"]
    others = [device for device in devices if device.device != REFERENCE]
    counts = "; ".join(
        f"{title}: {verdicts.meeting(others, name)} of {len(others)}"
        for name, title in verdicts.CRITERIA.items()
    )
    return {
        "answer": f"Yes: {', '.join(there)}." if there else "Not yet.",
        "predicted_year": paper.PREDICTED_YEAR,
        "counts": counts,
        "unmet": verdicts.unmet(devices),
        "verdict_head": ["Device", "there?", *verdicts.CRITERIA.values()],
        "verdicts": [
            {
                "title": device.title,
                "overall": verdicts.overall(device),
                "cells": [
                    {
                        "answer": verdicts.answer(device, name),
                        "words": verdicts.in_words(device, name),
                    }
                    for name in verdicts.CRITERIA
                ],
            }
            for device in devices
        ],
    }


def summary(found: Found) -> dict[str, Any]:
    """Count the values of an item that come out as printed, and find the largest difference of numbers."""
    comparisons = found.item.compare(found.result)
    errors = [cell.relative_error for cell in comparisons if cell.relative_error is not None]
    return {
        "name": found.item.name,
        "title": found.item.title,
        "count": len(comparisons),
        "same": sum(cell.agrees for cell in comparisons),
        "largest": f"{max(errors):.1%}" if errors else "-",
    }


def section(found: Found, title: str | None = None) -> dict[str, Any]:
    """Give the template an item: its meaning, values side by side, pictures, the whole report folded."""
    item, result = found.item, found.result
    return {
        "name": item.name,
        "title": title or item.title,
        "alt": item.title,
        "missing": False,
        "meaning": with_code(item.meaning(result)),
        "comparison": [
            (cell.what, cell.shown(cell.paper), cell.shown(cell.ours), cell.difference)
            for cell in item.compare(result)
        ],
        "pictures": [
            {"name": Path(name).stem, "data": picture_data(found.folder / name)}
            for name in pictures(found.report)
        ],
        "made": result["provenance"],
        "report": report_html(found.report),
    }


def missing(item: Item) -> dict[str, Any]:
    """Give the template an item that was not run."""
    return {
        "name": item.name,
        "title": item.title,
        "missing": True,
        "needs": item.needs,
        "words": " ".join(item.words),
    }


def with_code(text: str) -> str:
    """Escape text for HTML, and mark words in backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def pictures(report: str) -> list[str]:
    """List the names of a report's pictures, in order."""
    return re.findall(PICTURE, report)


def report_html(report: str) -> str:
    """Convert a Markdown report to HTML without its title and its pictures; wide tables scroll."""
    text = re.sub(r"^# .*\n", "", report)
    text = re.sub(PICTURE, "", text)
    # HTML in a report stays text, whoever wrote it. Its links lead to files that are not in the page.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r'<a href="(?!https?:|#)[^"]*">(.*?)</a>', r"\1", body)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return re.sub(r"<(/?)h2>", r"<\1h3>", body)
