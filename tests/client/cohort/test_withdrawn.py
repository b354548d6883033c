"""Who withdrew is left out of the table, and nobody of the same label who does not exist, or does."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esn_client.cohort.participants import Participant
from esn_client.cohort.withdrawn import name_of, remaining
from esn_client.gate.ledger import Ledger
from esn_client.gate.patients import salt_fingerprint

SALT = b"s" * 32


@pytest.mark.parametrize("simulated", [True, False])
def test_those_whose_consent_stands_remain(tmp_path, simulated, caplog):
    people = {
        kind: tuple(Participant(f"sub-{i}", 9.0, 0.0, "dre", 3, simulated=kind) for i in range(3))
        for kind in (True, False)
    }
    with Ledger(tmp_path / "ledger.sqlite", Ed25519PrivateKey.generate()) as ledger:
        assert remaining(people[simulated], ledger, salt=SALT) == people[simulated]
        name = name_of("sub-1", SALT, simulated=simulated)
        ledger.withdraw(name, scans=(), salt_sha256=salt_fingerprint(SALT))
        assert [p.label for p in remaining(people[simulated], ledger, salt=SALT)] == ["sub-0", "sub-2"]
        assert remaining(people[not simulated], ledger, salt=SALT) == people[not simulated]
    assert "1 participants are left out: their consent was withdrawn" in caplog.text
