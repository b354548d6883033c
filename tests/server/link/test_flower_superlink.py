"""The SuperLink's database is made wherever Flower is installed."""

import shutil

from flwr.supercore.state.alembic import utils
from sqlalchemy import create_engine, inspect

from esn_server.link.flower_superlink import find_migrations


def test_the_database_is_made_under_a_path_with_a_space_and_a_comma(tmp_path, monkeypatch):
    monkeypatch.setattr(
        utils, "ALEMBIC_DIR", shutil.copytree(utils.ALEMBIC_DIR, tmp_path / "a path, with both")
    )
    monkeypatch.setattr(utils, "build_alembic_config", utils.build_alembic_config)  # put back afterwards
    find_migrations()
    engine = create_engine(f"sqlite:///{tmp_path / 'superlink.db'}")
    try:
        utils.run_migrations(engine)
        assert {"node", "run"} <= set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
