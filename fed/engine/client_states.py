"""The states that clients keep from round to round: in host memory or on disk, and in checkpoints.

Only clients that have taken part hold anything. A client's state is written under the number of the round
that left it, and never over another one, so that a run can continue from any checkpoint that is left.
"""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from fed.protocols import FederationError, PyTree

INITIAL = "initial.npz"  # the state before a client's first round


class ClientStates:
    """The states of a population's clients, all of one structure.

    A state goes to the device when its client is in a group that trains, and comes back when the group has
    finished.
    """

    def __init__(
        self,
        initial: PyTree,
        folder: Path | None = None,
        *,
        on_disk: bool = False,
        writes: bool = True,
    ):
        """Begin with clients that have not taken part.

        Args:
            initial: the state before a client's first round.
            folder: where `save` writes; None keeps everything in memory and saves nothing.
            on_disk: write every state as soon as it changes, and hold none in memory. Processes that do not
                write hold the states in memory all the same.
            writes: False for the other ones of several processes that share the folder: they read from it.

        Raises:
            FederationError: states on disk lack a folder.
        """
        self._initial = jax.tree.map(np.asarray, initial)
        self._folder, self._on_disk, self._writes = folder, on_disk and writes, writes
        self._held: dict[str, PyTree] = {}
        self._unsaved: dict[str, int] = {}  # client -> round
        self._rounds: dict[str, list[int]] = {}  # folder's name -> rounds on disk
        if on_disk and folder is None:
            raise FederationError("client states on disk need a folder")

    def resume(self, round_index: int) -> None:
        """Go back to the states after a round; what later rounds left is deleted.

        Args:
            round_index: number of finished rounds.

        Raises:
            FederationError: rounds are finished, and the folder lacks what clients kept.
        """
        self._held.clear()
        self._unsaved.clear()
        self._rounds.clear()
        if self._folder is None:
            return
        first = self._folder / INITIAL
        if first.exists():
            # The algorithm may make it of the model's values, which the run no longer has.
            self._initial = self._read(first, "a client before its first round")
        elif round_index:
            raise FederationError(
                f"{self._folder} lacks {INITIAL}, and so what clients kept until round {round_index}: copy "
                "the folder with its run, or begin another run"
            )
        elif self._writes:
            self._store(first, self._initial)
        for client in [path for path in self._folder.glob("*") if path.is_dir()]:
            rounds = sorted(int(path.stem) for path in client.glob("*.npz") if path.stem.isdigit())
            for late in [held for held in rounds if held > round_index and self._writes]:
                (client / f"{late}.npz").unlink()
            self._rounds[client.name] = [held for held in rounds if held <= round_index]

    def take(self, clients: Sequence[str]) -> PyTree:
        """Stack the states of some clients: NumPy leaves [client, ...]."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[self._one(client) for client in clients])

    def put(self, clients: Sequence[str], states: PyTree, round_index: int) -> None:
        """Replace the states of some clients.

        Args:
            clients: ids, in the order of the rows.
            states: NumPy leaves [client, ...].
            round_index: number of finished rounds, with the one that left these states.
        """
        for row, client in enumerate(clients):
            state = jax.tree.map(lambda leaf, row=row: np.array(leaf[row]), states)
            if self._on_disk:
                self._write(client, state, round_index)
            else:
                self._held[client] = state
                self._unsaved[client] = round_index

    def save(self) -> None:
        """Write the states that have changed since the last call, so that a run can continue from here."""
        if self._folder is not None and self._writes:
            for client, round_index in self._unsaved.items():
                self._write(client, self._held[client], round_index)
            self._unsaved.clear()

    def forget_before(self, round_index: int) -> None:
        """Delete what a run that continues from this round, or a later one, does not need."""
        if not self._writes:
            return
        for name, rounds in self._rounds.items():
            old = [held for held in rounds if held <= round_index][:-1]
            for held in old:
                (self._path(name) / f"{held}.npz").unlink()
            self._rounds[name] = rounds[len(old) :]

    def _one(self, client: str) -> PyTree:
        if client in self._held:
            return self._held[client]
        rounds = self._rounds.get(_name(client))
        if not rounds:
            return self._initial
        return self._read(self._path(_name(client)) / f"{rounds[-1]}.npz", f"client {client}")

    def _read(self, path: Path, whose: str) -> PyTree:
        leaves, structure = jax.tree.flatten(self._initial)
        try:
            with np.load(path, allow_pickle=False) as held:
                found = [held[str(index)] for index in range(len(leaves))]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise FederationError(f"the state of {whose} in {path} cannot be read: {error}") from error
        # NumPy writes bfloat16 as bytes without a type.
        found = [
            leaf.view(like.dtype) if leaf.dtype.kind == "V" and leaf.itemsize == like.itemsize else leaf
            for leaf, like in zip(found, leaves, strict=True)
        ]
        for leaf, like in zip(found, leaves, strict=True):
            if leaf.shape != like.shape or leaf.dtype != like.dtype:
                raise FederationError(
                    f"the state of {whose} in {path} is {leaf.dtype}{list(leaf.shape)} where "
                    f"{like.dtype}{list(like.shape)} is wanted: it belongs to another algorithm or model"
                )
        return jax.tree.unflatten(structure, found)

    def _write(self, client: str, state: PyTree, round_index: int) -> None:
        name = _name(client)
        folder = self._path(name)
        if not (first := folder.parent / INITIAL).exists():
            self._store(first, self._initial)
        self._store(folder / f"{round_index}.npz", state)
        rounds = self._rounds.setdefault(name, [])
        if not rounds or rounds[-1] != round_index:
            rounds.append(round_index)

    def _store(self, path: Path, state: PyTree) -> None:
        """Write a state whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("partial")
        with partial.open("wb") as file:
            np.savez(file, **{str(index): leaf for index, leaf in enumerate(jax.tree.leaves(state))})
        os.replace(partial, path)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / name


def _name(client: str) -> str:
    """Name a client's folder: ids may hold anything, and be of any length."""
    return hashlib.sha256(client.encode("utf-8", "surrogateescape")).hexdigest()[:32]
