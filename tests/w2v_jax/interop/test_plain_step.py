import ast
import dataclasses
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.costs.step import training_step
from experiments.costs.step.training_step import StepSettings
from tests.configs import SMALL, SMALL_BEST_RQ, SMALL_LOG_MEL, VARIANTS, lengthened
from w2v_jax.batch import Batch
from w2v_jax.config import ModelConfig
from w2v_jax.interop import plain_step
from w2v_jax.model import products
from w2v_jax.optim import OptimizerConfig

FILE = Path(plain_step.__file__)
REGULARISED = {
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "input_dropout": 0.1,
    "feature_dropout": 0.1,
    "layer_drop": 0.3,
}
GROUP_NORM = VARIANTS["group-norm"].replace(**REGULARISED)
# As large-lv60; a group norm would hide how the waveform was normalised.
LAYER_NORM = VARIANTS["layer-norm"].replace(**REGULARISED, normalise_waveform=True)
# Without dropout, and the settings that no variant has.
SCALED = SMALL.replace(
    compute_dtype="float16",
    masked_group_norm=True,
    diversity_warmup_updates=9,
    scan_unroll=2,
    contrastive_temperature=1.0,  # gradients that are not clipped
)
BEST_RQ = SMALL_BEST_RQ.replace(**REGULARISED, normalise_waveform=True)
SAMPLES = 900
# Relative, of the loss and of every leaf. In 16 bits single roundings fall the other way.
TOLERANCES = {"float32": (1e-5, 1e-4), "bfloat16": (2e-3, 2e-2), "float16": (2e-4, 2e-3)}


@pytest.fixture(autouse=True)
def _high_rate(monkeypatch):
    """At the exported rate a wrong update would drown in the parameters' tolerance."""
    monkeypatch.setattr(training_step, "LEARNING_RATE", 0.1)


def flat(tree, prefix):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {prefix + "/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def named(state):
    """A training step's state by the artifact's names."""
    parameters, optimizer_state, *scale = state
    leaves = flat(parameters, "parameters/")
    for part in optimizer_state:
        if hasattr(part, "mu"):
            leaves["optimizer/count"] = part.count
            leaves |= flat(part.mu, "optimizer/mu/") | flat(part.nu, "optimizer/nu/")
    for loss_scale in scale:
        leaves |= {"loss_scale/scale": loss_scale.scale, "loss_scale/good_steps": loss_scale.good_steps}
    return leaves


@functools.cache
def direct_step(config, optimizer):
    """The step that is exported."""
    seconds = lengthened(SAMPLES, config) / 16_000
    settings = StepSettings(model="tiny", seconds=seconds, batch=3, optimizer=optimizer)
    return training_step.build(settings, config=config)


def drawn_state(config, optimizer):
    """A state amid training, as a tree and by name; drawn by numpy, so alike everywhere."""
    leaves, tree = jax.tree.flatten(direct_step(config, optimizer).arguments[0])
    names = named(jax.tree.unflatten(tree, range(len(leaves))))
    random = np.random.RandomState(0)
    for name, index in sorted(names.items()):
        drawn = 0.1 * random.standard_normal(leaves[index].shape).astype(np.float32)
        if name.endswith(("/count", "/good_steps")):
            drawn = np.int32(3)
        elif name == "loss_scale/scale":
            drawn = np.float32(1024.0)
        elif name.startswith("optimizer/mu/"):
            drawn = 1e-2 * drawn
        elif name.startswith("optimizer/nu/"):
            drawn = 1e-6 * (1.0 + drawn)
        elif name.endswith(("/scale", "/magnitude")) and name.startswith("parameters/"):
            drawn = 1.0 + drawn
        leaves[index] = jnp.asarray(drawn)
    return jax.tree.unflatten(tree, leaves), {name: leaves[index] for name, index in names.items()}


def manifest_of(config, names, optimizer):
    """What an artifact says of itself, after a way through JSON."""
    manifest = {
        "config": dataclasses.asdict(config),
        "optimizer": dataclasses.asdict(OptimizerConfig(name=optimizer)),
        "learning_rate": training_step.LEARNING_RATE,
        "state": [{"name": name} for name in names],
    }
    return json.loads(json.dumps(manifest))


def make_batch(lengths=(SAMPLES, 700, 0), config=SMALL):
    """Unequal lengths, a row without samples among them; longer where a configuration's frames are."""
    lengths = tuple(lengthened(length, config) for length in lengths)
    waveform = np.zeros((len(lengths), max(lengths)), np.float32)
    for row, length in enumerate(lengths):
        waveform[row, :length] = 0.1 + 0.3 * np.random.default_rng(row).standard_normal(length)
    ids = np.arange(5, 5 + len(lengths), dtype=np.uint32)
    return Batch(jnp.asarray(waveform), jnp.array(lengths, jnp.int32), jnp.asarray(ids))


@functools.cache
def plain(config, optimizer):
    """make_step's function over dicts: (state by name, batch, key, index) -> (state by name, loss)."""
    # In an order that is not the tree's: what counts is names.
    names = list(reversed(named(direct_step(config, optimizer).arguments[0])))
    function = jax.jit(plain_step.make_step(manifest_of(config, names, optimizer)))

    def step(state, batch, key, index):
        leaves = [state[name] for name in names]
        *leaves, loss = function(*leaves, *batch, jax.random.key_data(key), index)
        return dict(zip(names, leaves, strict=True)), loss

    return step


def assert_same(ours, theirs, share):
    """Relative norm of every leaf."""
    assert set(ours) == set(theirs)
    for name, leaf in theirs.items():
        leaf = np.asarray(leaf, np.float64)
        difference = np.linalg.norm(np.asarray(ours[name], np.float64) - leaf)
        assert difference <= share * np.linalg.norm(leaf), (name, difference)


@pytest.mark.parametrize(
    ("config", "optimizer"),
    [
        pytest.param(GROUP_NORM, "adamw", id="group-norm", marks=pytest.mark.slow),
        pytest.param(
            LAYER_NORM.replace(rematerialise_cnn=True, rematerialise_layers=True),
            "sgd",
            id="layer-norm-sgd-remat",
        ),
        pytest.param(
            LAYER_NORM.replace(compute_dtype="bfloat16"), "adamw", id="bfloat16", marks=pytest.mark.slow
        ),
        pytest.param(SCALED, "adamw", id="float16", marks=pytest.mark.slow),
        pytest.param(BEST_RQ, "adamw", id="best-rq"),
        pytest.param(SMALL_LOG_MEL, "sgd", id="wav2vec2-log-mel", marks=pytest.mark.slow),
    ],
)
def test_two_steps_equal_the_exported_step(config, optimizer):
    function, ours = jax.jit(direct_step(config, optimizer).function), plain(config, optimizer)
    state, leaves = drawn_state(config, optimizer)
    batch = make_batch(config=config)
    loss_share, state_share = TOLERANCES[config.compute_dtype]
    for index in range(2):
        key, step = jax.random.key(7 + index), jnp.int32(3 + index)
        state, theirs = function(state, batch, key, step)
        leaves, loss = ours(leaves, batch, key, step)
        assert abs(loss - theirs) <= loss_share * abs(theirs)
        assert_same(leaves, named(state), state_share)


def run_scaled(**changed):
    """A step of `SCALED` from a drawn state with some leaves changed: (state before, after, loss)."""
    state = drawn_state(SCALED, "adamw")[1]
    state |= {
        name.replace("__", "/"): jnp.asarray(leaf, state[name.replace("__", "/")].dtype)
        for name, leaf in changed.items()
    }
    return state, *plain(SCALED, "adamw")(state, make_batch(), jax.random.key(7), jnp.int32(0))


@pytest.mark.parametrize(
    ("scale", "good_steps", "new_scale", "new_good_steps"),
    [(1.0, 5, 1.0, 6), (2.0**10, 1999, 2.0**11, 0), (2.0**10, 1998, 2.0**10, 1999)],
)
def test_loss_scale_doubles_after_a_run_of_finite_steps(scale, good_steps, new_scale, new_good_steps):
    _, new, _ = run_scaled(loss_scale__scale=scale, loss_scale__good_steps=good_steps)
    assert float(new["loss_scale/scale"]) == new_scale
    assert int(new["loss_scale/good_steps"]) == new_good_steps


@pytest.mark.parametrize(("scale", "lowered"), [(2.0**127, 2.0**126), (1.5, 1.0)])
def test_an_overflow_changes_nothing_but_the_scale(scale, lowered):
    changed = {} if scale > 2.0 else {"parameters__mask_embedding": np.full(16, np.inf)}
    old, new, _ = run_scaled(loss_scale__scale=scale, loss_scale__good_steps=1999, **changed)
    assert float(new.pop("loss_scale/scale")) == lowered
    assert int(new.pop("loss_scale/good_steps")) == 0
    for name, leaf in new.items():
        np.testing.assert_array_equal(leaf, old[name], err_msg=name)


def test_the_loss_scale_changes_neither_loss_nor_step():
    _, scaled, loss = run_scaled(loss_scale__scale=2.0**10)
    _, unscaled, unscaled_loss = run_scaled(loss_scale__scale=1.0)
    assert float(loss) == float(unscaled_loss)
    del scaled["loss_scale/scale"], unscaled["loss_scale/scale"]
    # Unscaled, small gradients are rounded to fp16's subnormal numbers.
    assert_same(scaled, unscaled, 1e-3)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("spec", "shapes"),
    [("btd,de->bte", ((2, 5, 4), (4, 3))), ("bqhd,bkhd->bhqk", ((2, 5, 3, 4), (2, 6, 3, 4)))],
)
def test_products_round_as_the_models_do(spec, shapes, dtype):
    a, b = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    theirs, their_vjp = jax.vjp(lambda a, b: products.einsum(spec, a, b, dtype), a, b)
    ours, our_vjp = jax.vjp(lambda a, b: plain_step.einsum(spec, dtype, a, b), a, b)
    cotangent = jax.random.normal(jax.random.key(2), ours.shape)
    for one, other in zip((ours, *our_vjp(cotangent)), (theirs, *their_vjp(cotangent)), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_told_in_one_line():
    names = list(named(direct_step(GROUP_NORM, "adamw").arguments[0]))
    wrong = ["optimizer/momentum", *(name for name in names if name != "parameters/mask_embedding")]
    fault = r"missing: parameters/mask_embedding; unexpected: optimizer/momentum$"
    with pytest.raises(ValueError, match=fault):
        plain_step.make_step(manifest_of(GROUP_NORM, wrong, "adamw"))
    with pytest.raises(ValueError, match=r"missing: none; unexpected: optimizer/count, optimizer/mu/"):
        plain_step.make_step(manifest_of(GROUP_NORM, names, "sgd"))
    with pytest.raises(ValueError, match=r"unexpected: optimizer/count, optimizer/count$"):
        plain_step.make_step(manifest_of(GROUP_NORM, [*names, "optimizer/count"], "adamw"))
    with pytest.raises(ValueError, match="state leaves and 5 inputs, got 1 arrays"):
        plain_step.make_step(manifest_of(GROUP_NORM, names, "adamw"))(jnp.float32(0.0))
    manifest = manifest_of(GROUP_NORM, names, "adamw")
    manifest["config"]["compute_dtype"] = "int8"
    with pytest.raises(
        ValueError, match="compute_dtype must be one of float32, bfloat16, float16, got 'int8'"
    ):
        plain_step.make_step(manifest)


def test_the_file_is_python_3_8_and_needs_jax_alone():
    tree = ast.parse(FILE.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported <= {"jax", "numpy"} | set(sys.stdlib_module_names)


def test_the_file_heeds_every_setting_of_the_model():
    """A new setting of ModelConfig must be computed here too, or be named here as changing no step."""
    read = {
        node.attr
        for node in ast.walk(ast.parse(FILE.read_text()))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "config"
    }
    by_name = set(plain_step.CHOICES) | set(plain_step.ABSENT)
    # The parameters' shapes say it, or it concerns speed or the first parameters alone.
    shapes = {"hidden_dim", "feed_forward_dim", "codebook_groups", "codebook_entries", "codevector_dim"}
    others = {"projection_dim", "convolution_form", "transformer_initial_std"}
    assert {field.name for field in dataclasses.fields(ModelConfig)} == read | by_name | shapes | others


@pytest.mark.parametrize("name", plain_step.ABSENT)
def test_the_file_refuses_methods_that_it_does_not_have(name):
    _, state = drawn_state(GROUP_NORM, "sgd")
    value = {"gathered_negatives": True, "frozen_feature_encoder": True, "truncate_seconds": 1.0}.get(name, 1)
    manifest = manifest_of(GROUP_NORM.replace(**{name: value}), state, "sgd")
    with pytest.raises(ValueError, match=name):
        plain_step.make_step(manifest)


def test_a_manifest_of_an_older_version_is_wav2vec2s():
    names = list(named(direct_step(GROUP_NORM, "sgd").arguments[0]))
    manifest = manifest_of(GROUP_NORM, names, "sgd")
    for name in plain_step.ADDED:
        del manifest["config"][name]
    plain_step.make_step(manifest)
    manifest["config"]["objective"] = "hubert"
    with pytest.raises(ValueError, match="objective must be one of wav2vec2, best-rq, got 'hubert'"):
        plain_step.make_step(manifest)
