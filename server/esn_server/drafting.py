"""Drafts of protocols: a commented file that a coordinator edits and every site reads."""

import datetime
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

from jinja2 import Environment, StrictUndefined

from esn_core.atlas import load_atlas
from esn_core.protocol import RosterEntry
from esn_core.signed_protocol import today_utc
from esn_server.bundle import bundle_sha256

VALID_DAYS = 365


def example() -> str:
    """Return a draft without sites, for a coordinator to read before there are any.

    Its numbers are those of a rehearsal: budget, salt and deadline are the study's own choice.
    """
    return draft(
        study="example",
        roster=(),
        simulated=True,
        trust="secure-sum",
        colluding_sites=1,
        noise="gaussian",
        epsilon=8.0,
        delta=1e-3,
        split_salt="example",
        training_rounds=8,
        deadline_s=600.0,
    )


def draft(
    *,
    study: str,
    roster: Sequence[RosterEntry],
    simulated: bool,
    trust: Literal["secure-sum", "local"],
    colluding_sites: int,
    noise: Literal["gaussian", "none"],
    epsilon: float,
    delta: float,
    split_salt: str,
    training_rounds: int,
    deadline_s: float,
    atlas: str = "phantom-28",
    valid_days: int = VALID_DAYS,
) -> str:
    """Return a protocol as commented TOML.

    The imaging recipe is the one that the atlas's public template was made
    with: scores against a template mean nothing under another recipe.

    Parameters
    ----------
    study : str
    roster : sequence of RosterEntry
    simulated : bool
        Whether every child is simulated.
    trust : {'secure-sum', 'local'}
    colluding_sites : int
        Under 'secure-sum', so many sites may side with the centre.
    noise : {'gaussian', 'none'}
    epsilon, delta : float
        Budget of one child.
    split_salt : str
        Decides who is held out.
    training_rounds : int
    deadline_s : float
        Longest that one question may take.
    atlas : str
        One that ships: its imaging recipe and its pre-trained weights are taken.
    valid_days : int
        The protocol expires so many days from today.

    Raises
    ------
    ConfigError
        No such atlas ships.

    """
    load_atlas(atlas)  # refuses an unknown name with the known ones
    recipe = (files("esn_core") / "atlases" / f"{atlas}.recipe.toml").read_text(encoding="utf-8")
    template = (files("esn_server") / "protocol.toml.j2").read_text(encoding="utf-8")
    # TOML, not HTML: values pass through 'tojson', whose strings and numbers TOML shares.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    # TOML has no surrogate pairs, which JSON writes for characters beyond the first 65,536.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": True}
    return environment.from_string(template).render(
        study=study,
        simulated=simulated,
        expires=(today_utc() + datetime.timedelta(days=valid_days)).isoformat(),
        bundle_sha256=bundle_sha256(),
        roster=[entry.model_dump() for entry in roster],
        imaging=tomllib.loads(recipe),
        initial_weights="compact-1" if atlas == "phantom-28" else "compact-2",
        held_out_fraction=0.333,
        split_salt=split_salt,
        training_rounds=training_rounds,
        learning_rate=0.001,
        max_gradient_norm=1.0,
        trust=trust,
        colluding_sites=colluding_sites,
        noise=noise,
        epsilon=epsilon,
        delta=delta,
        deadline_s=deadline_s,
    )
