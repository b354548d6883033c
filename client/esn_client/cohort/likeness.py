"""How like a site's controls its children are: who is judged by others of another age, sex or scanner.

Each child is judged by the controls of its own hospital. What differs between the two groups beside the
illness is taken for illness where it changes connectomes: above all the scanner.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from esn_client.cohort.participants import Participant
from esn_client.cohort.strata import in_words, judges, stratum_of

NOTABLE = 0.5
"""A standardised mean difference above this, in size, is told: half a standard deviation (Cohen's medium)."""

FAR_YEARS = 3.0
"""A child who is so much younger or older than every control is told: nobody near its age judges it."""


def differences(
    participants: Sequence[Participant],
    *,
    children: Collection[str],
    controls: Collection[str],
    minimum_controls: int,
) -> tuple[str, ...]:
    """Say how the controls who take part differ from the children; nothing where they do not.

    Parameters
    ----------
    participants : sequence of Participant
    children, controls : collection of str
        Labels of those who take part.
    minimum_controls : int
        So many are enough to judge by.

    """
    ill = [p for p in participants if p.label in children]
    healthy = [p for p in participants if p.label in controls]
    if not ill or not healthy:
        return ()
    said = []
    ages = standardised([p.age_years for p in ill], [p.age_years for p in healthy])
    if abs(ages) > NOTABLE:
        means = [np.mean([p.age_years for p in group]) for group in (ill, healthy)]
        said.append(
            f"children are {means[0]:.1f} years old and controls {means[1]:.1f}, {abs(ages):.1f} sd apart"
        )
    youngest, oldest = (pick(p.age_years for p in healthy) for pick in (min, max))
    far = sum(not youngest - FAR_YEARS <= p.age_years <= oldest + FAR_YEARS for p in ill)
    if far:
        said.append(
            f"{far} children are over {FAR_YEARS:g} years younger or older than every control, "
            f"{youngest:.1f} to {oldest:.1f}"
        )
    sexes = standardised([p.sex for p in ill], [p.sex for p in healthy])
    if abs(sexes) > NOTABLE:
        shares = [100 * np.mean([p.sex for p in group]) for group in (ill, healthy)]
        said.append(f"{shares[0]:.0f} % of the children are male, and {shares[1]:.0f} % of the controls")
    scanned, beside = (Counter(map(stratum_of, group)) for group in (ill, healthy))
    said += [
        f"{scanned[stratum]} children have {in_words(stratum)}, and {beside[stratum]} controls: they are "
        "judged by all controls together"
        for stratum in sorted(scanned)
        if any(stratum) and beside[stratum] < minimum_controls and len({*scanned, *beside}) > 1
    ]
    return tuple(said)


def strata(
    participants: Sequence[Participant],
    *,
    children: Collection[str],
    controls: Collection[str],
    minimum_controls: int,
) -> tuple[str, ...]:
    """Name the strata whose children have controls of their own, where there are several."""
    ill = {stratum_of(p) for p in participants if p.label in children}
    beside = Counter(stratum_of(p) for p in participants if p.label in controls)
    if len(ill | set(beside)) < 2:
        return ()
    return tuple(
        f"{in_words(stratum)} by {beside[stratum]}"
        for stratum in sorted(ill)
        if any(stratum) and beside[stratum] >= minimum_controls
    )


def scanned_in_ways(
    participants: Sequence[Participant],
    scans: Mapping[str, Collection[str]],
    *,
    children: Collection[str],
    controls: Collection[str],
    minimum_controls: int,
) -> tuple[str, ...]:
    """Say where children, and the controls who judge them, were not all scanned alike.

    Parameters
    ----------
    participants : sequence of Participant
    scans : mapping of str to collection of str
        The kinds of each participant's scans, by label; nothing where that is not known.
    children, controls : collection of str
        Labels of those who take part.
    minimum_controls : int
        So many of one stratum judge by themselves.

    """
    healthy = [p for p in participants if p.label in controls]
    groups: dict[tuple[str, ...], list[str]] = {}
    for child in (p for p in participants if p.label in children):
        own = judges(child, healthy, minimum=minimum_controls)
        by = tuple(p.label for p, chosen in zip(healthy, own, strict=True) if chosen)
        groups.setdefault(by, []).append(child.label)
    said = []
    for by, judged in groups.items():
        ill, beside = (
            Counter(kind for label in group for kind in scans.get(label, ())) for group in (judged, by)
        )
        ways = sorted({*ill, *beside}, key=lambda kind: (-ill[kind] - beside[kind], kind))
        if len(ways) > 1:
            told = "; ".join(f"{ill[kind]} children and {beside[kind]} controls with {kind}" for kind in ways)
            said.append(
                f"{len(judged)} children and the {len(by)} controls who judge them were scanned in "
                f"{len(ways)} ways, which a column 'scanner' in participants.tsv would part: {told}"
            )
    return tuple(said)


def standardised(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the difference of two means over the groups' mean spread (Austin 2009, Stat. Med. 28:3083).

    Infinite where nobody of either group differs from the others of it, and the means do.
    """
    difference = float(np.mean(one) - np.mean(other))
    spread = float(np.sqrt((np.var(one) + np.var(other)) / 2))
    if spread == 0:
        return float(np.copysign(np.inf, difference)) if difference else 0.0
    return difference / spread
