"""Numbers in the sentences of findings."""


def loss(value: float) -> str:
    """Format a loss in nats: three decimals, or three digits where it is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def count(value: float, unit: str) -> str:
    """Format a count with its unit: 1 update, 1,200 updates."""
    whole = round(value)
    return f"{whole:,} {unit.removesuffix('s') if whole == 1 else unit}"
