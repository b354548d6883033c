"""Templates of quality pages: one file each, which asks for no other."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Give the templates; a name that a template does not get is an error."""
    environment = Environment(
        loader=PackageLoader("esn_client.imaging", "quality"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda digest: str(digest)[:12]
    return environment
