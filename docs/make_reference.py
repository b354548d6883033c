"""Write docs/reference, the reference of all public names, from the docstrings of the source.

Usage: python docs/make_reference.py [--check]

One page for each package, and an index. Nothing is imported: the source is parsed, so that a machine
without DIPY or Flower writes the same bytes. With --check nothing is written, and the exit status is 1
where a page is not what the source says now.
"""

import ast
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
PACKAGES = {"esn_core": ROOT, "esn_client": ROOT / "client", "esn_server": ROOT / "server"}
COMMAND = "python docs/make_reference.py"

_INDEX = f"""# Reference

All public names, written by `{COMMAND}` from the docstrings of the source; do not edit by hand.
The commands are left out: each describes itself with `--help`.

| package | what it is |
|---|---|
"""
_LINE = 100
_VALUE = 90

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = _Function | ast.ClassDef | ast.Assign | ast.AnnAssign
_Documented = _Function | ast.ClassDef | ast.Module


def pages() -> dict[str, str]:
    """Return the text of every page, by the name of its file."""
    found = {}
    index = _INDEX
    for top, base in PACKAGES.items():
        for path in sorted((base / top).rglob("__init__.py")):
            package = ".".join(path.parent.relative_to(base).parts)
            if package.endswith(".cli"):
                continue
            about = _docstring(_tree(path))
            modules = [m for m in sorted(path.parent.glob("*.py")) if not m.name.startswith("_")]
            parts = [f"# {package}", about, *(p for m in modules for p in _module(m, f"{package}.{m.stem}"))]
            found[f"{package}.md"] = "\n\n".join(part for part in parts if part) + "\n"
            index += f"| [`{package}`]({package}.md) | {about.splitlines()[0]} |\n"
    return {**found, "README.md": index}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module(path: Path, name: str) -> list[str]:
    tree = _tree(path)
    parts = [f"## {name}", _docstring(tree)]
    for node, note in _public(tree.body):
        if isinstance(node, ast.ClassDef):
            parts += _class(node)
        elif isinstance(node, _Function):
            parts += [f"### {node.name}", _fenced(_signature(node)), _docstring(node)]
        else:
            parts += [f"### {_name(node)}", _fenced(_assignment(node)), note]
    return parts


def _class(node: ast.ClassDef) -> list[str]:
    members = _public(node.body)
    bases = ", ".join(ast.unparse(base) for base in [*node.bases, *(k.value for k in node.keywords)])
    lines = [f"class {node.name}({bases})" if bases else f"class {node.name}"]
    lines += [f"    {_assignment(m)}" for m, _ in members if isinstance(m, (ast.Assign, ast.AnnAssign))]
    notes = [f"- `{_name(m)}`: {' '.join(note.split())}" for m, note in members if note]
    parts = [f"### {node.name}", _fenced("\n".join(lines)), _docstring(node), "\n".join(notes)]
    for method in (m for m, _ in members if isinstance(m, _Function)):
        parts += [f"#### {node.name}.{method.name}", _fenced(_signature(method)), _docstring(method)]
    return parts


def _public(body: list[ast.stmt]) -> list[tuple[_Definition, str]]:
    """Pair each public definition of a body with the string that stands below it, if one does."""
    found = []
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, _Definition):
            name = _name(node)
            value = below.value if isinstance(below, ast.Expr) else None
            note = str(value.value) if isinstance(value, ast.Constant) else ""
            if name and not name.startswith("_") and name != "model_config":
                found.append((node, inspect.cleandoc(note)))
    return found


def _name(node: _Definition) -> str:
    if isinstance(node, _Function | ast.ClassDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return ast.unparse(target) if isinstance(target, (ast.Name, ast.Tuple)) else ""


def _assignment(node: ast.Assign | ast.AnnAssign) -> str:
    annotation = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    if node.value is None:
        return _name(node) + annotation
    value = ast.unparse(node.value)
    return f"{_name(node)}{annotation} = {value if len(value) <= _VALUE else '...'}"


def _signature(node: _Function) -> str:
    """Return the head of a function; one parameter a line where it is long."""
    a = node.args
    plain = zip(a.args, [*[None] * (len(a.args) - len(a.defaults)), *a.defaults], strict=True)
    given = [_parameter(*each) for each in plain]
    given += [f"*{_parameter(a.vararg)}"] if a.vararg else ["*"] if a.kwonlyargs else []
    given += [_parameter(*each) for each in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    given += [f"**{_parameter(a.kwarg)}"] if a.kwarg else []
    marks = "".join(f"@{ast.unparse(mark)}\n" for mark in node.decorator_list)
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{word} {node.name}({', '.join(given)}){result}"
    if len(line) > _LINE:
        line = f"{word} {node.name}(\n" + "".join(f"    {each},\n" for each in given) + f"){result}"
    return marks + line


def _parameter(arg: ast.arg, default: ast.expr | None = None) -> str:
    return ast.unparse(arg) + ("" if default is None else f" = {ast.unparse(default)}")


def _docstring(node: _Documented) -> str:
    """Return a numpydoc docstring as Markdown: its headings bold, its entries a list, its examples fenced."""
    text = ast.get_docstring(node) or ""
    head, *sections = re.split(r"^(\w[\w ]*)\n-{3,}$\n", text, flags=re.MULTILINE)
    said = [
        re.sub(r"^>>> (?:.+\n?)+", lambda m: _fenced(m[0].rstrip()) + "\n", head.strip(), flags=re.MULTILINE)
    ]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        entries = re.sub(r"^(\S.*)$", r"- `\1`", body.strip(), flags=re.MULTILINE)
        said.append(f"**{title}**\n\n{entries}")
    return "\n\n".join(said)


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def main() -> int:
    """Write the pages, or compare them; return the exit status."""
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
        if stale:
            print(f"docs/reference is not what the source says now: {COMMAND}", *stale, file=sys.stderr)
        return int(bool(stale))
    PAGES.mkdir(exist_ok=True)
    for name in there.keys() - wanted.keys():
        (PAGES / name).unlink()
    for name, text in wanted.items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
