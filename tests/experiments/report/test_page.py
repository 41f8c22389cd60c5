"""Pages: long commands wrap, versions are folded, pictures are inside."""

import re

from experiments.report.footer import footer
from experiments.report.page import self_contained_html
from experiments.report.prose import bullets, fold, from_to, listed

PROVENANCE = {
    "command": "w2v-jax pretrain " + "--data corpora/some/folder " * 10,
    "commit": "abc",
    "device": "1 x cpu",
    "cores": 2,
    "versions": {"jax": "0.1", "numpy": "0.2"},
    "xla_flags": "--xla_one=1 --xla_two=2",
}


def test_flags_and_versions_are_folded_and_the_command_is_not(tmp_path):
    html = self_contained_html(footer(PROVENANCE), tmp_path, "a page")
    (folded,) = re.findall(r"<details>(.*?)</details>", html, re.DOTALL)
    assert "<summary>XLA flags and versions</summary>" in folded
    assert "<code>--xla_one=1 --xla_two=2</code>" in folded  # Markdown in a fold is Markdown still
    assert "jax 0.1, numpy 0.2" in folded
    assert "pretrain" not in folded
    assert f"<p><code>{PROVENANCE['command'].strip()}" in html.replace(" </code>", "")
    without = footer(PROVENANCE | {"xla_flags": ""})
    assert "XLA" not in without
    assert "<summary>Versions</summary>" in without


def test_nothing_makes_a_page_wider_than_a_phone(tmp_path):
    """Code wraps; what cannot wrap, tables and aligned lines, scrolls by itself."""
    style = re.sub(r"\s+", " ", self_contained_html("text", tmp_path, "a page"))
    rules = dict(re.findall(r"([a-z]+(?:, [a-z]+)*) \{ ([^}]*) \}", style.split("<style>")[1]))
    assert "overflow-wrap: anywhere" in rules["code"]
    for name in ("table", "pre"):
        assert "overflow-x: auto" in rules[name]
    assert "display: block" in rules["table"]
    assert "max-width: 100%" in rules["img"]


def test_sentences():
    assert bullets(["One.", "", "Two."]) == "- One.\n- Two."
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert from_to(4.75, None, "{:.1f}".format) == "from 4.8 to not finite"
    assert fold("more", "\n*text*\n") == "<details><summary>more</summary>\n\n*text*\n\n</details>"
