"""Where test data lie."""

from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"
