"""Templates of quality pages: one file each, which asks for no other."""

from jinja2 import Environment

from esn_core.system.pages import templates_of


def environment() -> Environment:
    """Give the templates, with the filters that they use."""
    templates = templates_of("esn_client.imaging", "quality")
    templates.filters["short"] = lambda digest: str(digest)[:12]
    return templates
