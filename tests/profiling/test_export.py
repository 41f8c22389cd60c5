import datetime
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from profiling import export, runner


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.zeros((3, 4)), "constant"),
        (np.ones(()), "constant"),
        (np.zeros((0, 4)), "constant"),
        (np.random.default_rng(0).standard_normal(4000) * 0.02 + 1, "normal"),
        (np.random.default_rng(0).uniform(-0.3, 0.1, 4000), "uniform"),
    ],
)
def test_weights_are_drawn_as_they_were(values, kind):
    spec = export.draw_like(values)
    assert spec["kind"] == kind
    entry = export.describe_leaf("w", values.astype(np.float32), spec)
    drawn = runner.draw(entry, 0, 0)
    assert drawn.shape == values.shape
    if values.size:
        assert drawn.mean() == pytest.approx(values.mean(), abs=0.02)
        assert drawn.std() == pytest.approx(values.std(), rel=0.05)
    if kind == "uniform":
        assert -0.32 < drawn.min() < drawn.max() < 0.12


def test_an_artifact_holds_programs_checksums_and_the_runner(tmp_path):
    leaves = [jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)]
    programs = {
        platform: export.export_program(lambda x, n: (x * n.astype(jnp.float32), x.sum()), leaves, platform)
        for platform in ("cpu", "cuda")
    }
    plain = tmp_path / "plain_step.py"
    plain.write_text("x = 1\n")
    folder = tmp_path / "artifact"
    manifest = export.write_artifact(folder, {"exported": export.versions()}, programs, plain)
    assert manifest == json.loads((folder / "artifact.json").read_text())
    assert set(manifest["programs"]) == {"cpu", "cuda"}
    for row in (*manifest["programs"].values(), manifest["plain"]):
        content = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
    assert (folder / "runner.py").read_bytes() == Path(runner.__file__).read_bytes()
    assert runner.load_manifest(folder)[0] == manifest
    # The program is the function, and says which platform it is for.
    again = jax.export.deserialize(bytearray((folder / "step.cpu.jaxexport").read_bytes()))
    doubled, total = again.call(jnp.arange(3.0), jnp.int32(2))
    np.testing.assert_array_equal(doubled, [0, 2, 4])
    assert total == 3
    cuda = jax.export.deserialize(bytearray((folder / "step.cuda.jaxexport").read_bytes()))
    assert cuda.platforms == ("cuda",)


def test_what_the_window_goes_by_is_written_down():
    said = export.versions()
    low = jax.export.minimum_supported_calling_convention_version
    high = jax.export.maximum_supported_calling_convention_version
    today = datetime.date.fromisoformat(said["date"])
    assert runner.window_refusal({"exported": said}, jax.__version__, today, (low, high)) is None
    assert runner.window_refusal({"exported": said}, jax.__version__, today, (low, high - 1)) is not None
