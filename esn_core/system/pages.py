"""Pages: HTML from templates, each one file that asks for no other.

jinja2 comes with the extras of either side, not with the core alone.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates_of(package: str, folder: str = ".", *, html: bool = True) -> Environment:
    """Return the templates of a package; a name that a template does not get is an error.

    Parameters
    ----------
    package : str
        Name of an importable package.
    folder : str
        Of the templates, below the package.
    html : bool
        Whether what is filled in is escaped; not in Markdown.

    """
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=html,  # noqa: S701 (Markdown is no HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
