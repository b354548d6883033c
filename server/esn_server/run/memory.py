"""What the centre remembers of its sites: the ends of their ledgers, and for whom seeds were asked."""

import json
from pathlib import Path

from pydantic import ValidationError

from esn_core.errors import ConfigError, ProtocolError, StudyError
from esn_core.messages.facts import EMPTY_LEDGER, LedgerMark
from esn_core.system.files import write_whole
from esn_server.run.checkpoints import RunStore


class Memory:
    """The memory of one run over that of the centre.

    Parameters
    ----------
    centre : Path
        The centre's directory; what is seen of a site's ledger outlives a study there.
    store : RunStore
        Of the run.

    """

    def __init__(self, centre: Path, store: RunStore) -> None:
        self._centre = centre
        self._store = store

    def ledger_seen(self, site: str) -> LedgerMark:
        """Return the newest entry of a site's ledger that this centre saw, in this run or before.

        Raises
        ------
        ConfigError
            The file that holds it is damaged, or contradicts the run's directory.

        """
        kept, here = kept_ledger(self._centre, site), self._store.ledger_seen(site)
        if kept.entries == here.entries and kept.head != here.head:
            raise ConfigError(
                f"{_path(self._centre, site)}: entry {kept.entries} of the ledger of {site} is another one "
                "in the run's directory: the two belong to different centres"
            )
        return max(kept, here, key=lambda mark: mark.entries)

    def see_ledger(self, site: str, mark: LedgerMark) -> None:
        """Keep the newest entry.

        Raises
        ------
        ProtocolError
            It has the number of one that was seen, and is another.
        StudyError
            It cannot be kept; without it, a ledger that is put back would go unseen.

        """
        seen, kept = self.ledger_seen(site), kept_ledger(self._centre, site)
        if mark.entries == seen.entries and mark.head != seen.head:
            raise ProtocolError(
                f"entry {mark.entries} of its ledger is not the one that this centre saw: the ledger was "
                "replaced or restored from a backup"
            )
        if mark.entries > kept.entries:
            path = _path(self._centre, site)
            try:
                write_whole(path, json.dumps(mark.model_dump()).encode())
            except OSError as cause:
                raise StudyError(f"{path}: the end of a ledger cannot be kept: {cause.strerror}") from cause
        self._store.see_ledger(site, mark)

    def final_set(self, question: str) -> tuple[str, ...] | None:
        """Return the sites whose seeds were asked for, if any were."""
        return self._store.final_set(question)

    def finalise(self, question: str, sites: tuple[str, ...]) -> None:
        """Keep, durably, that seeds are asked for the sum of these sites."""
        self._store.finalise(question, sites)


def _path(centre: Path, site: str) -> Path:
    return centre / "sites" / f"{site}.ledger.json"


def kept_ledger(centre: Path, site: str) -> LedgerMark:
    """Return the newest end of a site's ledger that the centre's own file holds; `ConfigError` if damaged."""
    path = _path(centre, site)
    try:
        return LedgerMark.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return EMPTY_LEDGER
    except (OSError, ValidationError) as cause:
        raise ConfigError(f"{path}: cannot be read; it holds what was last seen of a ledger") from cause


def accept_ledger(centre: Path, site: str, mark: LedgerMark, *, yes: bool) -> LedgerMark:
    """Take another ledger for a site's from now on: the site lost it, and counted again what had left.

    Parameters
    ----------
    centre : Path
        The centre's directory.
    site : str
    mark : LedgerMark
        The end of the rebuilt ledger, as the site read it out.
    yes : bool
        Without it nothing is written.

    Returns
    -------
    LedgerMark
        What the centre saw last.

    Raises
    ------
    ConfigError
        The centre has not enrolled such a site.

    """
    path = _path(centre, site)
    if not (centre / "sites" / f"{site}.toml").exists():
        raise ConfigError(f"{centre}: no site {site} is enrolled")
    before = kept_ledger(centre, site)
    if yes:
        write_whole(path, json.dumps(mark.model_dump()).encode())
    return before
