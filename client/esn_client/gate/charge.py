"""One release, as a site charges it to its patients."""

from dataclasses import dataclass

from esn_core.privacy.accounting import GaussianRelease


@dataclass(frozen=True)
class Charge:
    """One release of a sum over all patients of one split, as it is charged.

    Attributes
    ----------
    question : str
        Id of the question that is answered.
    protocol_sha256 : str
    run : str
        The run of the protocol; a protocol is answered in one run only.
    release : str
        Name of the kind of release.
    trust : {'secure-sum', 'local'}
        Whose noise protects the patients: that of all sites under masks, or this site's own.
    noise_multiplier : float
        Of what anybody outside gets to see, over `l2_bound`; 0 for an exact release.
    noise_share : float
        The part of that noise's variance that this site added.
    l2_bound : float
    dimension : int
    patients : tuple of str
        Keyed hashes of the patients in the sum, sorted.
    salt_sha256 : str
        Fingerprint of the key of these hashes.
    software : str

    """

    question: str
    protocol_sha256: str
    run: str
    release: str
    trust: str
    noise_multiplier: float
    noise_share: float
    l2_bound: float
    dimension: int
    patients: tuple[str, ...]
    salt_sha256: str
    software: str

    @property
    def mechanism(self) -> GaussianRelease:
        """What was done, as far as privacy is concerned."""
        return GaussianRelease(self.noise_multiplier)
