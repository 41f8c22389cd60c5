"""Markdown tables."""

from markdown_it import MarkdownIt

from experiments.report.tables import facts, table


def test_a_bar_in_a_cell_ends_no_cell():
    text = table(("name", "words"), [("a|b", "log | grep loss"), (None, 3)])
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<td ") == 4
    assert ">a|b</td>" in html
    assert ">log | grep loss</td>" in html
    assert facts([("a|b", 1)]).count("\\|") == 1
