"""The connected nodes, by the names of their clients, and what they answer."""

import logging
import time
from typing import Any

from fed.flower.messages import Answer, import_flwr, unpack_answer
from fed.protocols import FederationError, PyTree

log = logging.getLogger(__name__)


class Nodes:
    """Flower's nodes by the names of their clients."""

    def __init__(self, grid: Any, timeout_seconds: float | None):
        self._grid, self._timeout = grid, timeout_seconds
        self._names: dict[int, str] = {}

    def names(self) -> set[str]:
        """Name all clients that have been connected."""
        return set(self._names.values())

    def wait_for(self, count: int) -> dict[str, int]:
        """Wait until as many clients are connected: their nodes by name."""
        while len(connected := self._connected()) < count:
            time.sleep(1.0)
        return connected

    def ask(
        self, invited: list[str], request: dict[str, Any], like: tuple[PyTree, PyTree], round_index: int
    ) -> tuple[dict[str, Answer], list[str], list[str]]:
        """Send a round to the invited clients: (answers by name, dropped, late)."""
        connected = self._connected()
        asked = [name for name in invited if name in connected]
        found: dict[str, Answer | None] = {name: None for name in invited if name not in connected}
        nodes = [connected[name] for name in asked]
        for node, reply in self._send(nodes, request, "train", str(round_index + 1)).items():
            name = self._names[node]
            try:
                if reply.has_error():
                    raise FederationError(reply.error.reason)
                found[name] = unpack_answer(reply.content, *like, f"client {name}")
            except FederationError as error:
                log.warning("round %d: client %s failed: %s", round_index + 1, name, error)
                found[name] = None
        answers = {name: answer for name, answer in found.items() if answer is not None}
        dropped = [name for name, answer in found.items() if answer is None]
        return answers, dropped, [name for name in asked if name not in found]

    def _connected(self) -> dict[str, int]:
        here = list(self._grid.get_node_ids())
        for node, reply in self._send([n for n in here if n not in self._names], {}, "query", "").items():
            if reply.has_error():
                log.warning("node %d has no client: %s", node, reply.error.reason)
            else:
                self._names[node] = str(reply.content["client"]["name"])
        found: dict[str, int] = {}
        for node in [node for node in here if node in self._names]:
            name = self._names[node]
            if name in found:
                raise FederationError(
                    f"nodes {found[name]} and {node} are both client {name}: give each its own partition-id"
                )
            found[name] = node
        return found

    def _send(self, nodes: list[int], records: dict[str, Any], kind: str, group: str) -> dict[int, Any]:
        """Send the same records to some nodes: replies by node."""
        flwr = import_flwr().app
        messages = [
            flwr.Message(flwr.RecordDict(dict(records)), node, kind, group_id=group) for node in nodes
        ]
        if not messages:
            return {}
        replies = self._grid.send_and_receive(messages, timeout=self._timeout)
        return {reply.metadata.src_node_id: reply for reply in replies}
