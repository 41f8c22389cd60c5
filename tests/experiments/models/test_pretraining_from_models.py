"""Pre-training begins from models that convert made, and from Hugging Face folders."""

import jax
import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.options import arguments
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.run import Pretraining, start
from experiments.pretrain.settings import resolve
from experiments.process.files import read_json
from experiments.runs.folder import RunFolder
from tests.experiments.cli.test_commands import fails
from tests.experiments.models.test_convert import bits, convert, parameters_of, write_folder
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import TINY
from w2v_jax.interop.huggingface_names import ENCODER, PRE_TRAINING

PRETRAIN = [
    "--rounds", "1", "--clients", "2", "--clients-per-round", "2", "--local-steps", "1", "--batch", "2",
    "--seconds", "1", "--heldout-speakers", "1",
]  # fmt: skip


@pytest.mark.slow
def test_pretraining_begins_from_what_was_converted(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", TINY, PRE_TRAINING)
    ours = convert(folder, tmp_path / "ours")
    starts = {}
    for name, init in (("fresh", None), ("hf", f"hf:{folder}"), ("ours", str(ours))):
        out = tmp_path / f"run {name}"
        options = [] if init is None else ["--init", init]
        assert cli.main(["pretrain", "--out", str(out), *PRETRAIN, *options]) == 0
        starts[name] = read_json(out / "untrained.json")["loss"]
        settings = read_json(out / "config.json")["settings"]
        assert (settings["init"], settings["model"]) == (init, "tiny")
    assert starts["hf"] == starts["ours"] != starts["fresh"]
    # It can be converted in its turn, and continues only from the same model.
    trained = bits(convert(tmp_path / "run ours", tmp_path / "trained"))
    assert trained.keys() == bits(folder).keys()
    assert trained != bits(folder)
    capfd.readouterr()
    words = fails(capfd, "pretrain", "--out", str(tmp_path / "run ours"), *PRETRAIN)
    assert "init: " in words


def test_a_run_begins_with_the_converted_parameters(tmp_path):
    """No round is run; the slow test above begins from the Hugging Face folder too, and trains."""
    ours = convert(write_folder(tmp_path / "hf", TINY, PRE_TRAINING), tmp_path / "ours")
    options = arguments.parse(PretrainArguments, [*PRETRAIN, "--init", str(ours)], "w2v-jax pretrain")
    settings = resolve(options)
    assert (settings["init"], settings["model"]) == (str(ours), "tiny")
    folder = RunFolder(tmp_path / "run", settings, {})
    _, state = start(Pretraining(settings, folder), Checkpoints(tmp_path / "checkpoints"))
    folder.close()
    jax.tree.map(np.testing.assert_array_equal, dict(state.parameters), parameters_of(TINY))


def test_pretraining_needs_a_quantizer_and_the_same_shape(tmp_path, capfd):
    encoder = write_folder(tmp_path / "encoder", TINY, ENCODER)
    whole = write_folder(tmp_path / "whole", TINY, PRE_TRAINING)
    out = str(tmp_path / "run")
    assert "without the quantizer" in fails(
        capfd, "pretrain", "--out", out, *PRETRAIN, "--init", f"hf:{encoder}"
    )
    words = fails(capfd, "pretrain", "--out", out, "--model", "base", "--init", f"hf:{whole}")
    assert "checkpoint of another architecture than --model base" in words
    words = fails(capfd, "pretrain", "--out", out, "--init", str(tmp_path / "nothing"))
    assert "no such pre-training run" in words
    assert not (tmp_path / "run").exists()
