"""Tables of docs/benchmarks.md that a command writes, between its name in a comment and the next comment."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_END = "<!-- to here -->"


def write(command: str, tables: str) -> None:
    """Replace what a command wrote before."""
    begin = f"<!-- {command} writes from here -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(_END, 1)
    PAGE.write_text(f"{before}{begin}\n\n{tables}\n\n{_END}{after}", encoding="utf-8")
