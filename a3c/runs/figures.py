"""Figures as they are read."""


def figure(value: float) -> str:
    """Return a figure with a digit after the point, or with three digits where that would lose some."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
