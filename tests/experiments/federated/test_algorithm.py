"""`--algorithm NAME` or `FILE.py:NAME`: what is found, what is refused, and runs on speech with files."""

import contextlib
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.federated.algorithm import AlgorithmSettings, build, fingerprint, parse, pin
from experiments.options.errors import UsageError
from experiments.runs.algorithm_name import algorithm_name
from experiments.runs.folder import RunFolder
from fed import algorithms
from fed.aggregation import uniform
from fed.algorithm import Algorithm, Combined, LocalStep, Server
from tests.docs.blocks import blocks_of
from tests.experiments.cli.test_commands import fails
from tests.paths import ROOT
from w2v_jax.errors import UserError

GUIDE = ROOT / "docs" / "guides" / "own-algorithm.md"
OWN = """
from fed.aggregation import uniform
from fed.algorithm import Algorithm

ready = Algorithm(log_weight=uniform)
number = 3

def made(factor=2.0, rule=None, **others):
    return Algorithm(log_weight=rule)

def wrong():
    return "nothing"

def fails():
    return unknown
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_every_shipped_algorithm_is_built_by_its_name():
    for name in algorithms.ALGORITHMS:
        assert isinstance(build(AlgorithmSettings(algorithm=name)), Algorithm)
        assert fingerprint(name) is None
    for mu in (AlgorithmSettings(proximal=0.5), AlgorithmSettings(algorithm="fedprox", options=["mu=0.5"])):
        here, there = {"w": np.float32(3.0)}, {"w": np.float32(1.0)}
        step = LocalStep(here, {"w": np.float32(0.25)}, Server(there, ()), lambda parameters: ({}, {}))
        assert build(mu).gradient(step, ())[0]["w"] == 0.25 + 0.5 * (3.0 - 1.0)


def test_options_reach_the_rule_and_the_server():
    settings = AlgorithmSettings(aggregation="uniform", server_optimizer="fedavgm", server_learning_rate=0.5)
    algorithm = build(settings)
    assert algorithm.log_weight is uniform
    parameters = {"w": np.ones(2, np.float32)}
    update = {"w": np.full(2, 0.25, np.float32)}
    state = algorithm.server_init(parameters)
    for expected in (1.125, 1.3625):  # 0.5 x 0.25, then 0.5 x (0.25 + 0.9 x 0.25)
        held = Server(parameters, state)
        parameters, state = algorithm.server_step(held, Combined(update, np.float32(1), np.float32(1)))
        np.testing.assert_allclose(parameters["w"], expected, rtol=1e-6)


def test_algorithms_of_a_file(own):
    assert build(AlgorithmSettings(algorithm=f"{own}:ready")).log_weight is uniform
    settings = AlgorithmSettings(
        algorithm=f"{own}:made", options=["factor=3", "any=x"], aggregation="uniform"
    )
    assert build(settings).log_weight is uniform
    described = fingerprint(f"{own}:made")
    assert described is not None
    assert (described["file"], described["name"]) == ("own.py", "made")
    own.write_text(OWN + "\n")
    assert fingerprint(f"{own}:made") != described


def test_a_file_may_have_dataclasses_and_neighbours(tmp_path):
    (tmp_path / "beside.py").write_text("SHARE = 0.25\n")
    (tmp_path / "with_class.py").write_text(
        "from __future__ import annotations\nimport dataclasses\nimport beside\n"
        "from fed.algorithms.robust import trimmed_mean\n\n"
        "@dataclasses.dataclass\nclass Held:\n    share: float = beside.SHARE\n\n"
        "def mine():\n    return trimmed_mean(Held().share)\n"
    )
    assert build(AlgorithmSettings(algorithm=f"{tmp_path}/with_class.py:mine")).combine is not None


def test_a_file_that_changed_since_the_run_began_is_named(own, tmp_path):
    with contextlib.closing(RunFolder(tmp_path / "run", {"seed": 0}, {})) as folder:
        folder.begin()
        pin(folder, f"{own}:made")
        pin(folder, f"{own}:made")
        pin(folder, "scaffold")
        own.write_text(OWN + "#\n")
        with pytest.raises(UserError, match=r"own\.py is not the file that .*run was begun with"):
            pin(folder, f"{own}:made")


def test_names_for_reports():
    assert algorithm_name({"aggregation": "loss-weighted"}) == "loss-weighted"
    held = {"algorithm": "runs/own.py:made", "algorithm_options": ["factor=3"], "compress_up": "q2"}
    assert algorithm_name(held) == "own.py:made, factor=3, q2 up"
    assert algorithm_name({"algorithm": "scaffold", "aggregation": "fedavg"}) == "scaffold"


def test_options_are_numbers_words_or_texts():
    assert parse(["mu=0.1", "chosen=3", "keep=false", "name=a=b"]) == {
        "mu": 0.1, "chosen": 3, "keep": False, "name": "a=b"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"algorithm": "scafold"}, "unknown --algorithm 'scafold': did you mean scaffold?"),
        ({"algorithm": "nowhere.py:x"}, "there is no file nowhere.py"),
        ({"algorithm": "OWN:mad"}, "has no algorithm mad; it has ready, made, wrong, fails"),
        ({"algorithm": "OWN:number"}, "has no algorithm number"),
        ({"algorithm": "OWN:wrong"}, "gives a str: it has to be a fed.algorithm.Algorithm"),
        ({"algorithm": "krum", "options": ["byzantin=2"]}, "krum has no option byzantin; it takes byzantine"),
        ({"algorithm": "diloco", "options": ["keep_optimizer=no"]}, "is true or false, got no"),
        ({"algorithm": "fedprox", "options": ["mu=0,1"]}, "mu of fedprox is a number, got 0,1"),
        ({"algorithm": "krum", "options": ["chosen=1.5"]}, "chosen of krum is a whole number, got 1.5"),
        ({"algorithm": "trimmed-mean", "options": ["share=0.7"]}, "at least 0 and below 0.5, got 0.7"),
        ({"algorithm": "feddyn", "options": ["alpha=0"]}, "alpha has to be above 0, got 0"),
        ({"algorithm": "mime-lite", "options": ["base=adam"]}, "base cannot be given on the command line"),
        ({"algorithm": "OWN:fails"}, ":fails: NameError"),
        ({"options": ["mu"]}, "takes NAME=VALUE, such as mu=0.1, got mu"),
        ({"options": ["q=1", "q=2"]}, "has q twice"),
        ({"algorithm": "scaffold", "aggregation": "uniform"}, "--aggregation has no meaning with"),
        ({"algorithm": "feddyn", "server_optimizer": "fedadam"}, "--server-optimizer has no meaning with"),
        ({"algorithm": "scaffold", "proximal": 0.1}, "--proximal is FedProx's mu: leave it out"),
        ({"compress_up": "q3"}, "--compress-up: there is no codec 'q3': use fp32, bf16, q8, q4, q2"),
        ({"compress_down": "topk:0.1"}, "--compress-down: topk:0.1 would send a model of mostly zeros"),
    ],
)
def test_what_is_wrong_is_named_in_a_line(settings, words, own):
    settings["algorithm"] = settings.get("algorithm", "fedavg").replace("OWN", str(own))
    with pytest.raises(UsageError, match=re.escape(words)):
        build(AlgorithmSettings(**settings))


def test_codecs_reach_the_algorithm():
    shapes = {"w": jax.ShapeDtypeStruct((4096,), np.float32)}
    plain, two_bits = build(AlgorithmSettings()), build(AlgorithmSettings(compress_up="q2"))
    assert plain.bytes_up(shapes) == 4 * 4096
    assert two_bits.bytes_up(shapes) < plain.bytes_up(shapes) / 12
    assert two_bits.client_init is not None  # error feedback keeps a remainder
    without = build(AlgorithmSettings(compress_up="q2", error_feedback=False, compress_down="q8"))
    assert without.client_init is None
    assert without.bytes_down(shapes) < plain.bytes_down(shapes) / 3


def test_a_file_that_fails_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(UsageError, match=r"broken\.py fails: ModuleNotFoundError"):
        build(AlgorithmSettings(algorithm=f"{tmp_path}/broken.py:x"))


def test_the_command_refuses_before_it_reads_data(capfd, tmp_path):
    words = fails(capfd, "pretrain", "--algorithm", "scafold", "--out", str(tmp_path / "run"))
    assert "did you mean scaffold?" in words
    assert not (tmp_path / "run").exists()


def files_of_the_guide(folder: Path) -> list[str]:
    """Write the guide's algorithms as a file each, and check their length."""
    blocks = [
        block.text for block in blocks_of(GUIDE) if block.text.lstrip().startswith(("import jax", "def "))
    ]
    imports, first = blocks[0].split("def scaffold", 1)
    texts = {"scaffold": "def scaffold" + first, "median": blocks[1], "fednova": blocks[2]}
    for name, text in texts.items():
        lines = [line for line in text.splitlines() if line.strip()]
        assert len(lines) <= 40, name
        (folder / f"{name}.py").write_text(imports + text)
    return list(texts)


@pytest.mark.slow
def test_files_of_the_guide_run_on_speech_and_continue_to_the_same_bits(tmp_path):
    """Each is killed after its first checkpoint; lanes, chunks and the store of states change nothing."""
    import orbax.checkpoint as ocp

    options = [
        "--model", "log-mel-tiny", "--preset", "ten-clients", "--clients", "4", "--clients-per-round", "3",
        "--rounds", "2", "--local-steps", "1", "--batch", "1", "--seconds", "1", "--checkpoint-every", "1",
        "--evaluate-every", "2", "--seed", "3", "--optimizer", "sgd",
    ]  # fmt: skip

    def run(name, folder, *further):
        words = ["pretrain", *options, "--algorithm", f"{tmp_path}/{name}.py:{name}", "--out", str(folder)]
        assert cli.main([*words, *further]) == 0

    def leaves(folder):
        with ocp.CheckpointManager((folder / "checkpoints").absolute()) as manager:
            return jax.tree.leaves(manager.restore(2, args=ocp.args.StandardRestore()))

    for name in files_of_the_guide(tmp_path):
        whole, cut = tmp_path / f"{name}-whole", tmp_path / f"{name}-cut"
        run(name, whole, "--lanes", "1")
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "checkpoints" / "2")
        run(name, cut, "--lanes", "1")
        pairs = zip(leaves(whole), leaves(cut), strict=True)
        assert all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in pairs)
        other = tmp_path / f"{name}-other"
        on_disk = ["--client-states", "disk"] if name == "scaffold" else []
        run(name, other, "--lanes", "2", "--chunk", "2", *on_disk)
        pairs = list(zip(leaves(whole), leaves(other), strict=True))
        gap = sum(np.square(np.subtract(a, b, dtype=np.float64)).sum() for a, b in pairs) ** 0.5
        assert gap <= 1e-5 * sum(np.square(np.float64(a)).sum() for a, _ in pairs) ** 0.5
    assert len(os.listdir(tmp_path / "scaffold-whole" / "clients")) >= 3
