"""A site's own settings: where its data are, how the centre is met, and what the site will never exceed."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from esn_client.gate.limits import Limits
from esn_core.identity.roster import SiteName
from esn_core.system.toml_file import Table, read_toml


class CentreSettings(Table):
    """How the coordinating centre is met; where it is and who it is stand in its kit."""

    connect_timeout_s: float = Field(gt=0)
    """How long one attempt to connect may take; `join` goes on with the next."""
    extra_ca: Path | None = None
    """The authority, PEM, of a proxy on the way that inspects TLS: it may prove the connection instead."""

    def under(self, directory: Path) -> Self:
        """Return the same settings with relative paths taken from `directory`."""
        return self.model_copy(update={"extra_ca": self.extra_ca and directory / self.extra_ca})


class ComputeSettings(Table):
    """What the site computes with."""

    device: Literal["auto", "cpu", "cuda"]
    processes: int | None = Field(default=None, ge=1, le=256)
    """Read by nothing, and taken so that files of earlier releases can be read (`prepare --n-procs`)."""
    question_limit_s: float = Field(default=3600.0, gt=0)
    """Longest that one question may take; then it is answered with an error."""
    memory_limit_gb: float = Field(default=16.0, ge=0.5)
    """Most memory, in 10^9 bytes, that answering may use."""


class SiteSettings(Table):
    """One site, as its own file describes it; relative paths are relative to that file."""

    site: SiteName
    dataset: Path
    derivatives: Path
    state: Path
    """Keys, ledger, audit log, the centre's kit and approved protocols; nobody else may read it."""
    centre: CentreSettings
    limits: Limits
    compute: ComputeSettings

    def under(self, directory: Path) -> Self:
        """Return the same settings with relative paths taken from `directory`."""
        return self.model_copy(
            update={
                "dataset": directory / self.dataset,
                "derivatives": directory / self.derivatives,
                "state": directory / self.state,
                "centre": self.centre.under(directory),
            }
        )

    @property
    def ledger_path(self) -> Path:
        """The privacy ledger."""
        return self.state / "ledger.sqlite"

    @property
    def audit_path(self) -> Path:
        """One line for everything that left or was refused."""
        return self.state / "audit.jsonl"

    @property
    def node_key_path(self) -> Path:
        """Private key by which the centre's link knows this site."""
        return self.state / "node_key"

    @property
    def identity_key_path(self) -> Path:
        """Private key by which the site signs its ledger."""
        return self.state / "identity_key"

    @property
    def mask_key_path(self) -> Path:
        """Private key from which the site's masks are made."""
        return self.state / "mask_key.pem"

    @property
    def enrolment_path(self) -> Path:
        """What is sent to the centre: the site's name and public keys."""
        return self.state / "enrolment.toml"

    @property
    def salt_path(self) -> Path:
        """Secret that turns participant labels into the ledger's identifiers."""
        return self.state / "patient_salt"

    @property
    def kit_path(self) -> Path:
        """What the site took in of the centre: its address and how it proves itself."""
        return self.state / "centre" / "kit.toml"

    @property
    def ca_certificate_path(self) -> Path:
        """The kit's certificate authority, PEM."""
        return self.state / "centre" / "ca.crt"

    @property
    def authorities_path(self) -> Path:
        """The kit's authority and the one that the settings name besides, for `join`, PEM."""
        return self.state / "centre" / "authorities.crt"

    @property
    def signing_key_path(self) -> Path:
        """The kit's signing key, OpenSSH, for standard tools to read."""
        return self.state / "centre" / "signing_key.pub"

    @property
    def withdrawn_path(self) -> Path:
        """Directory of protocols whose approval was taken back."""
        return self.state / "withdrawn"

    @property
    def bands_path(self) -> Path:
        """Directory of the bands of its cohort that the site has said, each under the protocol's hash."""
        return self.state / "bands"

    @property
    def transcripts_path(self) -> Path:
        """The released sums of studies, as the site has verified them."""
        return self.state / "transcripts.sqlite"

    def personal_model_path(self, study: str, protocol_sha256: str) -> Path:
        """Directory of this hospital's own model of a study; nothing in it may be sent."""
        return self.state / "personal" / f"{study}-{protocol_sha256[:16]}"

    @property
    def approved_path(self) -> Path:
        """Directory of approved protocols, each under its hash."""
        return self.state / "approved"


def load_site(path: Path) -> SiteSettings:
    """Read a site's settings; `ConfigError` names every fault at once."""
    return read_toml(path, SiteSettings).under(path.resolve().parent)
