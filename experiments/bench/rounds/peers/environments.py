"""Make a virtual environment for each peer, because their pinned versions conflict.

python -m experiments.bench.rounds.peers.environments [NAME ...]
"""

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
FOLDER = Path("runs/peers")


@dataclasses.dataclass(frozen=True)
class Environment:
    """Contents of a peer's environment.

    Attributes:
        packages: arguments of each `pip install`, in order.
        imports: modules that a runner needs from it.
        ours: install this project too, for its jax models.
        python: name of the interpreter that it needs; None takes this one.
    """

    packages: tuple[tuple[str, ...], ...]
    imports: tuple[str, ...]
    ours: bool = False
    python: str | None = None


TORCH = ("torch==2.13.0",)
ENVIRONMENTS = {
    "drjax": Environment((("drjax",),), ("drjax",), ours=True),
    "pfl": Environment((TORCH, ("pfl",), ("transformers",)), ("torch", "pfl", "transformers")),
    "flower": Environment(
        (TORCH, ("flwr[simulation]",), ("transformers",)), ("torch", "flwr", "ray", "transformers")
    ),
    # Its best setting is threads without the global interpreter lock, which Python 3.14t has.
    "blazefl": Environment(
        (TORCH, ("blazefl==3.0.0",), ("transformers",)),
        ("torch", "blazefl", "transformers"),
        python="python3.14t",
    ),
    "torch": Environment((TORCH, ("transformers",)), ("torch", "transformers")),
}


def in_a_checkout() -> bool:
    """Tell whether this project runs from its checkout, from which peers import it."""
    return (ROOT / "pyproject.toml").is_file()


def python_of(name: str, folder: Path = FOLDER) -> Path:
    """Return the path of the interpreter of a peer's environment, which may not exist yet."""
    return folder / name / "bin" / "python"


def interpreter(name: str) -> str | None:
    """Find an interpreter for a peer: its environment's, or this one if it has the modules; else None."""
    if in_a_checkout() and python_of(name).exists():
        return str(python_of(name).absolute())  # a resolved link would lose its environment
    complete = all(importlib.util.find_spec(module) for module in ENVIRONMENTS[name].imports)
    return sys.executable if complete else None


def make(name: str, folder: Path = FOLDER) -> None:
    """Make an environment, unless a complete one exists.

    Raises:
        FileNotFoundError: the interpreter that it needs is not here.
        subprocess.CalledProcessError: pip failed and printed why.
    """
    ready = folder / name / ".ready"
    if ready.exists():
        return
    made = ENVIRONMENTS[name]
    python = shutil.which(made.python) if made.python else sys.executable
    if python is None:
        raise FileNotFoundError(f"{name} needs {made.python}, which is not on the PATH")
    subprocess.run([python, "-m", "venv", "--clear", str(folder / name)], check=True)
    pip = [str(python_of(name, folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if made.ours:
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "-e", str(ROOT)], check=True)
    for words in made.packages:
        subprocess.run([*pip, *words], check=True)
    ready.touch()


def main() -> None:
    """Make the environments named on the command line, or all."""
    for name in sys.argv[1:] or ENVIRONMENTS:
        print(f"{name}: {python_of(name)}", flush=True)
        try:
            make(name)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            print(f"{name}: not made ({error})", flush=True)


if __name__ == "__main__":
    main()
