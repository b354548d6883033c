"""Wording: how the report writes a number."""


def fixed(value: float | None, digits: int = 3, absent: str = "undefined") -> str:
    """Return a number with so many decimals and a true minus sign, or a word where there is none."""
    return absent if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign, plus included."""
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(pair: tuple[float, float] | None, digits: int = 3) -> str:
    """Return both ends of an interval, or a word where there is none."""
    return "undefined" if pair is None else f"{fixed(pair[0], digits)} to {fixed(pair[1], digits)}"


def count(people: float | None, noisy: bool, digits: int = 0, absent: str = "undefined") -> str:
    """Return a number of people, with a sign that it is about so many where the privacy noise is in it."""
    return fixed(people, 0, absent) if people is None or not noisy else f"≈ {fixed(people, digits)}"


def chance(p: float | None) -> str:
    """Return a p value."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else fixed(p)
