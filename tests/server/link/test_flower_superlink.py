"""The SuperLink as we start it: its database under any path, and its door."""

import asyncio
import shutil

from flwr.supercore.state.alembic import utils
from sqlalchemy import create_engine, inspect

from esn_server.link.flower_superlink import OnlyTheCentre, find_migrations
from esn_server.service.superlink import PROOF_HEADER, proof_of


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


def answered(app, path, *headers, kind="http"):
    """Return the statuses that a client of an application sees."""
    said = []

    async def send(event):
        said.append(event.get("status", event["type"]))

    asyncio.run(app({"type": kind, "path": path, "headers": list(headers)}, None, send))
    return said


def test_the_door_opens_to_the_centres_proof_alone():
    async def flower(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    app = OnlyTheCentre(flower, proof_of(b"s" * 32))
    name, proof = PROOF_HEADER.encode(), proof_of(b"s" * 32).encode()
    assert answered(app, "/v1/control/start-run", (name, proof)) == [200]
    assert answered(app, "/health") == [200]
    closed = [401, "http.response.body"]
    assert answered(app, "/v1/control/start-run") == closed
    assert answered(app, "/v1/fleet/pull-messages", (name, proof_of(b"t" * 32).encode())) == closed
    assert answered(app, "/v1/control/start-run", (name, b"guess"), (name, proof)) == closed
    assert answered(app, "/health/../v1/control/start-run") == closed
    assert answered(app, "/health", kind="websocket") == ["websocket.close"]
    assert proof_of(b"s" * 32) != (b"s" * 32).hex()  # the secret itself is shown to nobody
