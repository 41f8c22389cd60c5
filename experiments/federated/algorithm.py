"""`--algorithm NAME` or `FILE.py:NAME`, with its settings -> a federated algorithm."""

import dataclasses
import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optax

from experiments.options.errors import UsageError
from experiments.options.spelling import nearest
from experiments.process.files import read_json
from experiments.runs.folder import RunFolder
from fed import aggregation, server
from fed.algorithm import Algorithm
from fed.algorithms import ALGORITHMS
from fed.compression import codec
from fed.compression.compressed import compressed
from fed.protocols import FederationError
from w2v_jax.errors import UserError

FINGERPRINT = "algorithm.json"
RULE, OPTIMIZER = "rule", "server_optimizer"  # parameters that options of their own fill


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlgorithmSettings:
    """The settings that say which algorithm a run uses.

    Attributes:
        algorithm: a name of `fed.algorithms.ALGORITHMS`, or FILE.py:NAME.
        options: NAME=VALUE, for the function that makes the algorithm.
        aggregation: a name of `aggregation.RULES`.
        temperature: of the loss-weighted rule.
        server_optimizer: a name of `server.OPTIMIZERS`.
        server_learning_rate: its learning rate.
        proximal: FedProx's mu; above 0 it makes FedProx of FedAvg.
        compress_up, compress_down: codecs of the messages and of the server's model; None sends them whole.
        error_feedback: clients keep what a codec fails to send, and add it to their next message.
    """

    algorithm: str = "fedavg"
    options: Sequence[str] = ()
    aggregation: str = "fedavg"
    temperature: float = 1.0
    server_optimizer: str = "fedavg"
    server_learning_rate: float = 1.0
    proximal: float = 0.0
    compress_up: str | None = None
    compress_down: str | None = None
    error_feedback: bool = True


def build(settings: AlgorithmSettings) -> Algorithm:
    """Build the algorithm of a run, with its codecs.

    Raises:
        UsageError: there is no such algorithm or codec, or it does not take one of the settings.
    """
    algorithm = _build(settings)
    if settings.compress_up is None and settings.compress_down is None:
        return algorithm
    codecs = {}
    for way, name in (("up", settings.compress_up), ("down", settings.compress_down)):
        try:
            # Without error feedback the mean of a random mask has to be right by itself.
            codecs[way] = None if name is None else codec(name, unbiased=not settings.error_feedback)
        except FederationError as error:
            raise UsageError(f"--compress-{way}: {error}") from error
    try:
        return compressed(algorithm, **codecs, error_feedback=settings.error_feedback)
    except FederationError as error:
        raise UsageError(f"--compress-up and --compress-down: {error}") from error


def _build(settings: AlgorithmSettings) -> Algorithm:
    """Build the algorithm without codecs."""
    name, options = settings.algorithm, parse(settings.options)
    if settings.proximal:
        if name not in ("fedavg", "fedprox") or "mu" in options:
            raise UsageError(f"--proximal is FedProx's mu: leave it out with --algorithm {name}")
        name, options = "fedprox", options | {"mu": settings.proximal}
    made = _find(name)
    if isinstance(made, Algorithm):
        _check_taken(settings, {}, options)
        return made
    parameters = inspect.signature(made).parameters
    _check_taken(settings, parameters, options)
    given = {name: _checked(settings, name, value, parameters) for name, value in options.items()}
    if RULE in parameters:
        given[RULE] = aggregation.RULES[settings.aggregation](settings.temperature)
    if OPTIMIZER in parameters:
        given[OPTIMIZER] = _server_optimizer(settings)
    try:
        algorithm = made(**given)
    except Exception as error:  # of the user's own function, or of a value that is out of range
        what = str(error) if isinstance(error, FederationError) else _first_line(error)
        raise UsageError(f"--algorithm {settings.algorithm}: {what}") from error
    if not isinstance(algorithm, Algorithm):
        raise UsageError(
            f"--algorithm {settings.algorithm} gives a {type(algorithm).__name__}: it has to be a "
            "fed.algorithm.Algorithm, or a function that returns one"
        )
    return algorithm


def fingerprint(name: str) -> dict[str, str] | None:
    """Describe the file of an algorithm, so that a run that continues can tell whether it changed.

    Returns:
        The file's name, the name in it and the SHA-256 of its content; None for a shipped algorithm.
    """
    if name in ALGORITHMS:
        return None
    path, attribute = _split(name)
    return {
        "file": path.name,
        "name": attribute,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def pin(folder: RunFolder, name: str) -> None:
    """Keep the fingerprint of an algorithm's file in a run folder.

    Raises:
        UserError: a run that continues was begun with another content of the file.
    """
    found = fingerprint(name)
    if found is None:
        return
    path = folder.path / FINGERPRINT
    if path.exists() and read_json(path) != found:
        raise UserError(
            f"{name.rpartition(':')[0]} is not the file that {folder.path} was begun with ({FINGERPRINT} has "
            "its SHA-256): bring that one back to continue the run, or choose another --out"
        )
    folder.pin(FINGERPRINT, found)


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE options; a value is a number, true or false, or else a text.

    Raises:
        UsageError: a word has no `=`, or a name is there twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--algorithm-options takes NAME=VALUE, such as mu=0.1, got {word}")
        if name in found:
            raise UsageError(f"--algorithm-options has {name} twice")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text


def _server_optimizer(settings: AlgorithmSettings) -> optax.GradientTransformation:
    return server.OPTIMIZERS[settings.server_optimizer](settings.server_learning_rate)


def _check_taken(settings: AlgorithmSettings, parameters: Mapping[str, Any], options: Mapping) -> None:
    """Refuse settings that the algorithm does not read."""
    default = AlgorithmSettings()
    for name, parameter in (
        ("aggregation", RULE),
        ("server_optimizer", OPTIMIZER),
        ("server_learning_rate", OPTIMIZER),
    ):
        if getattr(settings, name) != getattr(default, name) and parameter not in parameters:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} has no meaning with --algorithm {settings.algorithm}: leave it out")
    own = [name for name in parameters if name not in (RULE, OPTIMIZER)]
    open_ended = any(held.kind is held.VAR_KEYWORD for held in parameters.values())
    for name in options:
        if name not in own and not open_ended:
            takes = ", ".join(own) if own else "no options"
            raise UsageError(f"--algorithm {settings.algorithm} has no option {name}; it takes {takes}")


def _checked(settings: AlgorithmSettings, name: str, value: Any, parameters: Mapping[str, Any]) -> Any:
    """Check an option's value against the parameter's default."""
    default = parameters[name].default if name in parameters else inspect.Parameter.empty
    kinds: dict[type, tuple[tuple[type, ...], str]] = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
    }
    if default is None:
        raise UsageError(f"--algorithm {settings.algorithm}: {name} cannot be given on the command line")
    allowed, words = kinds.get(type(default), ((object,), ""))
    is_number = bool not in allowed and object not in allowed
    if not isinstance(value, allowed) or (is_number and isinstance(value, bool)):
        raise UsageError(f"--algorithm-options {name} of {settings.algorithm} is {words}, got {value}")
    return float(value) if type(default) is float else value


def _find(name: str) -> Algorithm | Callable[..., Any]:
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    path, attribute = _split(name)
    spec = importlib.util.spec_from_file_location(f"algorithm_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))  # for files beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own file: any error is theirs to read, in one line
        raise UsageError(f"--algorithm {name}: {path} fails: {_first_line(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    held = getattr(module, attribute, None)
    if held is None or not (callable(held) or isinstance(held, Algorithm)):
        names = [
            key
            for key, value in vars(module).items()
            if isinstance(value, Algorithm) or getattr(value, "__module__", "") == module.__name__
        ]
        raise UsageError(
            f"--algorithm {name}: {path} has no algorithm {attribute}; it has {', '.join(names) or 'none'}"
        )
    return held


def _first_line(error: Exception) -> str:
    """Describe an error of the user's file in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _split(name: str) -> tuple[Path, str]:
    """Split FILE.py:NAME, and check that the file is there."""
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UsageError(f"{nearest(name, list(ALGORITHMS), '--algorithm')}, or give FILE.py:NAME")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"--algorithm {name}: there is no file {path}")
    return path, attribute
