"""Draw docs/pictures/healthy-run.png: `python -m tests.experiments.doctor.guide_picture`.

Its four short runs take a few minutes on two cores, with the small models of the tests.
"""

import os
import tempfile
from pathlib import Path
from unittest import mock

from experiments.doctor.curves import Curves
from experiments.doctor.diagnosis import diagnose
from experiments.report.figures import picture
from tests.paths import ROOT

PATH = ROOT / "docs" / "pictures" / "healthy-run.png"


def runs(folder: Path) -> dict[str, Curves]:
    """Run pre-training four times, and read the curves by title."""
    from experiments.cli import main as cli
    from experiments.doctor.reading import read
    from tests.configs import SMALL as SMALL_WAV2VEC2
    from tests.experiments.doctor import test_real_runs as real
    from w2v_jax.config import PRESETS

    # Frames of 20 ms, as those of base.
    wav2vec2 = SMALL_WAV2VEC2.replace(conv_kernels=(10, 8, 4), conv_strides=(10, 8, 4), codebook_entries=16)
    corpus = real.small_corpus(folder)
    often = ["--evaluate-every", "2"]
    short = ["--preset", "centralised", "--rounds", "10", "--local-steps", "1", *often]
    made = {
        "healthy": ("tiny", [*real.CENTRALISED, *often]),
        "collapsed (rate 10)": ("tiny", [*real.CENTRALISED, *often, "--learning-rate", "10"]),
        "too short (10 updates)": ("tiny", short),
        "diverged (BEST-RQ, rate 10)": ("best-rq-tiny", [*real.CENTRALISED, *often, "--learning-rate", "10"]),
    }
    found = {}
    with mock.patch.dict(PRESETS, {"tiny": wav2vec2, "best-rq-tiny": real.SMALL}):
        for place, (title, (model, options)) in enumerate(made.items()):
            out = folder / f"run{place}"
            words = ["--data", str(corpus), "--out", str(out), *real.OPTIONS, *options, "--model", model]
            assert cli.main(["pretrain", *words]) == 0
            found[title] = read(out)
    return found


def draw(found: dict[str, Curves], path: Path) -> None:
    """Draw losses over codes, a column for each run, with the doctor's findings."""
    with picture(path, 2, len(found), figsize=(13, 5)) as axes:
        for (title, curves), loss, codes in zip(found.items(), *axes, strict=True):
            loss.plot(*curves.series("loss"), color="C0", label="training")
            loss.plot(*curves.series("heldout_loss"), "o-", ms=3, color="C1", label="held out")
            loss.axhline(curves.chance_loss, color="grey", ls=":", label="a model that knows nothing")
            loss.set_title(f"{title}\ndoctor: {diagnose(curves).line()}", fontsize=8)
            if max(curves.values("loss")) > 3 * (curves.chance_loss or 1):
                loss.set_yscale("log")
            for name, style in (("codes", "-"), ("heldout_codes", "o-")):
                steps, values = curves.series(name)
                codes.plot(steps, [100 * v / curves.entries for v in values], style, ms=3)
            codes.axhline(100 * curves.groups / curves.entries, color="red", ls=":", label="collapse")
            codes.set(xlabel="updates", ylim=(0, 105))
            for axis in (loss, codes):
                axis.grid(alpha=0.25)
        axes[0][0].set_ylabel("loss, nats a masked frame")
        axes[1][0].set_ylabel("codes in use, % of all")
        axes[0][0].legend(fontsize=7)
        axes[1][0].legend(fontsize=7)


def shrink(path: Path) -> None:
    """Write a PNG again with a palette of 64 colours, which a drawing of lines does not miss."""
    from PIL import Image

    with Image.open(path) as whole:
        small = whole.convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    small.save(path, optimize=True)


def main() -> None:
    """Draw the picture."""
    from tests.xla import fast_flags

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", fast_flags(2))
    with tempfile.TemporaryDirectory() as folder:
        draw(runs(Path(folder)), PATH)
    shrink(PATH)


if __name__ == "__main__":
    main()
