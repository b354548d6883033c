"""Flower's SuperLink as a program that also runs where it is installed under a path with a space.

``python -m esn_server.link.flower_superlink`` takes the arguments of ``flower-superlink``.
"""

from typing import Any

from flwr.supercore.state.alembic import utils
from flwr.superlink.cli import flower_superlink


def find_migrations() -> None:
    """Let the SuperLink find the steps that make its database, whatever the path to them.

    Flower 1.41 joins their directories by spaces, and alembic splits the line at spaces and commas: under a
    path with either it finds none, and makes a database without tables.
    """
    build = utils.build_alembic_config

    def built(engine: Any) -> Any:
        config = build(engine)
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", str(utils.ALEMBIC_DIR / "versions"))
        return config

    utils.build_alembic_config = built


if __name__ == "__main__":
    find_migrations()
    flower_superlink()
