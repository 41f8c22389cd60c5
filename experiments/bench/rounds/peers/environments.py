"""A virtual environment for each peer, since their pins conflict.

python -m experiments.bench.rounds.peers.environments [NAME ...]
"""

import dataclasses
import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
FOLDER = Path("runs/peers")


@dataclasses.dataclass(frozen=True)
class Environment:
    """What a peer's environment holds.

    Attributes:
        packages: in the order in which they are installed, each as the words of one pip install.
        imports: the modules that a runner needs of it.
        ours: install this project as well, as its jax models need it.
    """

    packages: tuple[tuple[str, ...], ...]
    imports: tuple[str, ...]
    ours: bool = False


TORCH = ("torch==2.13.0",)
ENVIRONMENTS = {
    "drjax": Environment((("drjax",),), ("drjax",), ours=True),
    "pfl": Environment((TORCH, ("pfl",), ("transformers",)), ("torch", "pfl", "transformers")),
    "flower": Environment(
        (TORCH, ("flwr[simulation]",), ("transformers",)), ("torch", "flwr", "ray", "transformers")
    ),
    "torch": Environment((TORCH, ("transformers",)), ("torch", "transformers")),
}


def in_a_checkout() -> bool:
    """Whether this project runs from its checkout, from where peers import it."""
    return (ROOT / "pyproject.toml").is_file()


def python_of(name: str, folder: Path = FOLDER) -> Path:
    """The interpreter of a peer's environment, whether it is there or not."""
    return folder / name / "bin" / "python"


def interpreter(name: str) -> str | None:
    """What runs a peer: its environment's interpreter, or this one if it has what the peer needs, or None."""
    if in_a_checkout() and python_of(name).exists():
        return str(python_of(name).absolute())  # not resolved: a link would lose its environment
    here = all(importlib.util.find_spec(module) for module in ENVIRONMENTS[name].imports)
    return sys.executable if here else None


def make(name: str, folder: Path = FOLDER) -> None:
    """Make an environment, unless it is there whole.

    Raises:
        subprocess.CalledProcessError: pip failed; its own words say why.
    """
    ready = folder / name / ".ready"
    if ready.exists():
        return
    made = ENVIRONMENTS[name]
    venv.create(folder / name, with_pip=True, clear=True)
    pip = [str(python_of(name, folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if made.ours:
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "-e", str(ROOT)], check=True)
    for words in made.packages:
        subprocess.run([*pip, *words], check=True)
    ready.touch()


def main() -> None:
    """Make those that are named, or all."""
    for name in sys.argv[1:] or ENVIRONMENTS:
        print(f"{name}: {python_of(name)}", flush=True)
        try:
            make(name)
        except subprocess.CalledProcessError as error:
            print(f"{name}: not made ({error})", flush=True)


if __name__ == "__main__":
    main()
