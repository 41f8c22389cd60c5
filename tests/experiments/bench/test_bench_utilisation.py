"""bench utilisation: bad input, what modules scopes belong to, and a small run."""

import subprocess
import sys

import pytest

from experiments.bench.utilisation import module_of
from experiments.process.files import read_json
from tests.experiments.cli.test_commands import fails
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--model", "bse"], "unknown --model 'bse'"),
        (["--clients", "0"], "--clients must be at least 1"),
        (["--seconds", "0.1"], "--seconds must be between 0.5 and 60"),
    ],
)
def test_mistakes_are_one_line(argv, expected, tmp_path, capsys):
    assert expected in fails(capsys, "bench", "utilisation", *argv, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scope", "module"),
    [
        ("Wav2Vec2/context_network/layers/attention/q_proj/btd,de->bte", "transformer/attention"),
        ("Wav2Vec2/context_network/layers", "transformer"),
        ("Wav2Vec2/feature_encoder/conv_layers_0/norm", "feature_encoder/conv_layers_0"),
        ("Wav2Vec2/feature_encoder/conv_layers_0/reshape;jit(f)/Wav2Vec2", "feature_encoder/conv_layers_0"),
        ("Wav2Vec2/quantizer/weight_proj", "quantizer"),
        ("BestRQ/feature_encoder/log_mel/jit(rfft)/fft", "feature_encoder/log_mel"),
        ("BestRQ/context_network/layers/attention", "transformer/attention"),
        ("prediction/btd,de->bte", "prediction"),
        ("optimizer", "optimizer"),
        ("", "loss, masks and the rest"),
    ],
)
def test_scopes_belong_to_modules(scope, module):
    assert module_of(scope) == module


@pytest.mark.slow
def test_a_small_run(tmp_path):
    options = ["--model", "tiny", "--batch", "2", "--seconds", "0.5", "--clients", "2", "--repeats", "2"]
    argv = [sys.executable, "-m", "experiments", "bench", "utilisation", "--out", str(tmp_path), *options]
    # In a process of its own, as it sets XLA's flags.
    subprocess.run([*argv, "--precision", "fp32"], check=True, cwd=ROOT)
    result = read_json(tmp_path / "utilisation.json")
    (row,) = result["rows"]
    assert row["finite"]
    assert row["form"] == "product"  # by the number of clients
    assert row["utilisation"] == pytest.approx(row["products"] / row["seconds"] / result["peak_flops"])
    assert row["audio_seconds_per_second"] == pytest.approx(2 * 2 * 0.5 / row["seconds"])
    modules = {module["module"]: module for module in row["modules"]}
    assert sum(module["products"] for module in modules.values()) == row["products"]
    assert modules["transformer/feed_forward"]["seconds"] > 0 < modules["optimizer"]["seconds"]
    text = (tmp_path / "utilisation.md").read_text()
    assert "2 clients (product)" in text
    assert "least by roofline" in text
    assert (tmp_path / "utilisation.png").read_bytes().startswith(b"\x89PNG")
