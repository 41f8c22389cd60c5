"""Sources of tiny recordings, and what `data import` makes of them."""

import csv
import json
from collections import Counter

import numpy as np
import soundfile

from experiments.cli import main as cli
from w2v_jax.data.common_voice import load_corpus

RATE_HZ = 8000


def sound(path, seconds=0.25, channels=1, subtype="PCM_16", **options):
    """Write a recording whose samples count up, so that each excerpt is unlike the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * RATE_HZ)
    samples = np.stack([np.arange(count) + 1000 * (1 + channel) for channel in range(channels)], axis=1)
    samples = samples / 32768 if subtype == "FLOAT" else samples.astype(np.int16)
    soundfile.write(path, samples, RATE_HZ, subtype=subtype, **options)
    return path


def text(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def json_lines(*values):
    return [json.dumps(value, ensure_ascii=False) for value in values]


class Imported:
    """A corpus that was imported: its tables, its record and what was printed."""

    def __init__(self, out, printed, locale="xx"):
        self.folder, self.printed = out / locale, printed
        self.record = json.loads((out / "import.json").read_text())
        self.tables = {path.stem: self._rows(path) for path in sorted(self.folder.glob("*.tsv"))}
        self.rows = self.tables["validated"]

    @staticmethod
    def _rows(path):
        with path.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))

    def speakers(self):
        return dict(Counter(row["client_id"] for row in self.rows))

    def texts(self):
        return {row["path"]: row["sentence"] for row in self.rows}

    def left_out(self):
        return self.record["left_out_by_reason"]

    def sizes(self):
        return {name: len(rows) for name, rows in self.tables.items()}


def imported(capfd, tmp_path, source, *options):
    """Import a source, and see that commands read every clip of the result."""
    out = tmp_path / "corpus"
    capfd.readouterr()
    assert cli.main(["data", "import", str(source), "--out", str(out), *options]) == 0, capfd.readouterr().err
    found = Imported(out, capfd.readouterr().out)
    corpus = load_corpus(out)
    assert corpus.skipped == corpus.changed == []
    assert [clip.row.path for clip in corpus.clips] == [row["path"] for row in found.rows]
    assert [clip.row.sentence for clip in corpus.clips] == [row["sentence"] for row in found.rows]
    return found


def refused(capfd, source, *options):
    """Fail to import; returns the one line of the error."""
    capfd.readouterr()
    assert cli.main(["data", "import", str(source), *options]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    return err
