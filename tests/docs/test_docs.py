"""Every code block of README, guides and reference runs, or is looked at closely; none is passed over.

- python and console blocks are executed, in order, as one reader would: here, or with the word `slow` in
  `make test-slow`, or with `parity` in `make parity` (tests/parity/test_docs.py). Output is compared.
- `console rehearsed` blocks take hours or data that are not here (the paper's scale, a release). `make
  test-slow` runs every line, with options behind it that make it small (tests/docs/rehearsal.py). Commands
  with options in tables are rehearsed too.
- `console parsed` blocks need a cluster, a compiler or packages that are not here. They are NOT executed.
- Every line of both goes as it stands through the command's own parser and checks, so that all options exist
  and all values are valid. So do the commands in code spans of these files, the decisions and the results.
- `sh` blocks install something or are for another machine: make targets, extras, commands and runner.py's
  options are looked up.

A fence without a language, or with a word that tests/docs/blocks.py does not know, fails.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs import commands as docs_commands
from tests.docs import run as docs_run
from tests.docs.blocks import GUIDES, OTHERS, FenceError, blocks_of, command_lines, links_of, spans_of
from tests.paths import ROOT

RUN_HERE = [path for path in GUIDES if docs_run.chosen(path)]
RUN_SLOWLY = [path for path in GUIDES if len(docs_run.chosen(path, "slow")) > len(docs_run.chosen(path))]
WITH_FLOWER = [path for path in GUIDES if len(docs_run.chosen(path, "flower")) > len(docs_run.chosen(path))]
REHEARSED = [path for path in GUIDES if len(docs_run.chosen(path, "rehearsed")) > len(docs_run.chosen(path))]
LOOKED_AT = [
    (path, block)
    for path in GUIDES
    for block in blocks_of(path)
    if not block.executed or "rehearsed" in block.words
]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.name == "tutorial.md"))  # a minute of training
        for path in RUN_HERE
    ],
    ids=name,
)
def test_blocks_run(path, tmp_path):
    docs_run.run(docs_run.chosen(path), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN_SLOWLY, ids=name)
def test_blocks_run_with_the_slow_ones(path, tmp_path):
    docs_run.run(docs_run.chosen(path, "slow"), tmp_path)


@pytest.mark.parametrize("path", WITH_FLOWER, ids=name)
def test_blocks_run_beside_flower(path, tmp_path):
    pytest.importorskip("flwr")
    docs_run.run(docs_run.chosen(path, "flower"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", REHEARSED, ids=name)
def test_blocks_are_rehearsed(path, tmp_path):
    docs_run.run(docs_run.chosen(path, "rehearsed"), tmp_path, seconds=3600)


def test_every_guide_is_there_and_each_block_is_run_or_looked_at():
    guides = (
        "tutorial",
        "own-corpus",
        "own-model",
        "fewer-bytes",
        "own-algorithm",
        "real-clients",
        "price-your-function",
        "accelerators",
        "boards",
        "simulate",
    )
    expected = {f"docs/guides/{guide}.md" for guide in (*guides, "probe", "recognizer", "reproduce")}
    reference = {
        "docs/reference/api.md",
        "docs/reference/run-folder.md",
        "docs/architecture.md",
        "docs/glossary.md",
    }
    assert expected | reference | {"README.md"} <= {name(path) for path in GUIDES}
    for path in GUIDES:
        run = {
            block.line
            for words in ((), ("slow",), ("parity",), ("rehearsed",), ("flower",))
            for block in docs_run.chosen(path, *words)
        }
        looked_at = {block.line for other, block in LOOKED_AT if other == path}
        assert run | looked_at == {block.line for block in blocks_of(path)}


@pytest.mark.parametrize(
    ("path", "block"), LOOKED_AT, ids=[f"{path.name}:{block.line}" for path, block in LOOKED_AT]
)
def test_lines_that_are_not_run_could_be(path, block):
    for line in command_lines(block.text):
        docs_commands.check_line(line)


@pytest.mark.parametrize("path", [*GUIDES, *OTHERS], ids=name)
def test_commands_in_code_spans_can_be_typed(path):
    for line, text in spans_of(path):
        try:
            docs_commands.check_span(text)
        except docs_commands.LineError as error:
            pytest.fail(f"{path.name}, line {line}: {error}")


def test_spans_are_found():
    found = [text for path in OTHERS for _, text in spans_of(path) if docs_commands.check_span(text)]
    assert len(found) > 20


@pytest.mark.parametrize("path", [*GUIDES, *OTHERS, ROOT / "CHANGELOG.md"], ids=name)
def test_links_lead_to_files_and_headings(path):
    for target in links_of(path):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{path.name} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{path.name} links to {target}"


def test_quoted_efficiencies_are_those_of_the_kept_result():
    text = (ROOT / "docs" / "guides" / "price-your-function.md").read_text(encoding="utf-8")
    kept = json.loads((ROOT / "docs" / "results" / "table2" / "table2.json").read_text())["efficiencies"]
    quoted = dict(re.findall(r"(\w+)=([\d.]+)", text.split("Efficiencies(")[1].split(")")[0]))
    assert quoted.keys() == kept.keys()
    for field, value in quoted.items():
        assert float(value) == pytest.approx(kept[field], rel=2e-3)
    table = (ROOT / "docs" / "results" / "table2" / "table2.md").read_text(encoding="utf-8")
    median = re.search(
        r"^\| roofline +\| a device but for one cell +\| \d+ +\| ([\d.]+) %", table, re.MULTILINE
    )
    assert median is not None
    assert f"median error is {median.group(1)} %" in text


def test_readme_fits_one_screen_and_its_demo_is_what_make_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 70
    assert len(text.encode()) <= 4096
    demo = [line for line in text.splitlines() if line.startswith("w2v-jax ") and "runs/demo" in line]
    assert [line.split()[1] for line in demo] == ["data", "pretrain", "probe"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [line for line in demo if f"$(BIN)/{line}\n" not in makefile] == []


def test_the_drawing_of_rooms_has_every_room():
    drawing = (ROOT / "docs" / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [layer for contract in contracts["contracts"] for layer in contract.get("layers", ())]
    rooms = {room for layer in layers for room in layer.split(" | ")}
    assert len(rooms) > 25
    assert [room for room in sorted(rooms) if not re.search(rf"\b{room}\b", drawing)] == []


def test_commands_in_tables_are_rehearsed(tmp_path):
    commands = [block.text for block in blocks_of(ROOT / "README.md") if "rehearsed" in block.words]
    assert [docs_commands.split_command(text.split()[1:])[0] for text in commands] == [
        "pretrain", "finetune", "feasibility", "reproduce all",
    ]  # fmt: skip
    path = tmp_path / "page.md"
    path.write_text("| job | command |\n|---|---|\n| one | `w2v-jax data synth --out x`, `w2v-jax watch` |\n")
    assert [(block.line, block.text) for block in blocks_of(path)] == [(3, "w2v-jax data synth --out x")]
    assert docs_run.chosen(path) == []
    assert docs_run.chosen(path, "rehearsed") == blocks_of(path)


@pytest.mark.slow
def test_a_rehearsed_line_that_fails_fails(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "```console rehearsed\nw2v-jax reproduce table1 --out x\nw2v-jax data describe nowhere\n```\n"
    )
    assert docs_run.chosen(path) == []
    with pytest.raises(AssertionError, match="w2v-jax data describe nowhere ended with 2"):
        docs_run.run(docs_run.chosen(path, "rehearsed"), tmp_path)
    assert (tmp_path / "work" / "x" / "table1.json").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```\nls\n```\n", "the language ''"),
        ("```bash\nls\n```\n", "the language 'bash'"),
        ("```python sometimes\n1\n```\n", "the words sometimes"),
        ("```sh\nmake test\n```\n", "sh needs one of"),
        ("```text\nhello\n```\n", "right after an executed one"),
        ("```python\n1\n```\nwords\n```text\nhello\n```\n", "right after an executed one"),
        ("```python\n1\n```\n```text\n...\n```\n", "anything would match"),
        ("words\n\n    indented\n", "an indented code block"),
    ],
)
def test_unknown_fences_fail(text, words, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(FenceError, match=words):
        blocks_of(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "page.md, line 2"),
        ("```python\nx = 1\n```\n\n```python\nprint(y)\n```\n", "page.md, line 6"),
        ("```console\nw2v-jax data describe nowhere\n```\n", "ended with 2"),
        ("```console fails\nls .\n```\n```text\nerror\n```\n", "Expected"),
        ("```console\nrm -r .\n```\n", "runs w2v-jax and ls alone"),
    ],
)
def test_a_wrong_block_fails(text, words, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(AssertionError, match=words):
        docs_run.run(docs_run.chosen(path), tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "w2v-jax pretrain --modle tiny",
        "w2v-jax pretrain --rounds 0",
        "w2v-jax pretrain --preset ten-client",
        "w2v-jax pretrian",
        "w2v-jax bench memory --method exactly",
        "srun w2v-jax pretrain --distribute auto",
        "make tset",
        "pip install 'w2v-jax[private]'",
        "pip install 'jax[cuda7]'",
        "python runner.py base --output timings.json",
        "curl somewhere",
    ],
)
def test_lines_that_could_not_be_typed_are_found(line):
    with pytest.raises(docs_commands.LineError):
        docs_commands.check_line(line)


@pytest.mark.parametrize(
    "text", ["w2v-jax profile --modle base", "bench rounds --workload toy", "w2v-jax data snyth"]
)
def test_spans_that_could_not_be_typed_are_found(text):
    with pytest.raises(docs_commands.LineError):
        docs_commands.check_span(text)
