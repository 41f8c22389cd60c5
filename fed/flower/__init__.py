"""Real clients: an objective, a source and an algorithm as Flower's ClientApp and ServerApp.

Flower carries the messages; rounds are computed as in `fed.simulation`, and end with the same parameters.
flwr is imported lazily, and nothing else in `fed` needs it. Tested with flwr 1.42.0; Flower changes its
interface often.
"""

from fed.flower.client import client_app
from fed.flower.server import server_app

__all__ = ["client_app", "server_app"]
