"""The model card: README.md of a released model, filled from the signed protocol and the result."""

from collections.abc import Iterator, Sequence

from esn_core.protocol.price import price_of
from esn_core.protocol.protocol import Protocol
from esn_core.protocol.public_inputs import PublicInput
from esn_core.protocol.warnings import cautions
from esn_server.release.contents import INTENDED_USE, NOT_INTENDED, children_of
from esn_server.release.tripod import tripod
from esn_server.report.outcome import ADJACENCY, UNIT, controls_note
from esn_server.report.result import StudyResult
from esn_server.report.wording import fixed, interval

_FRONT = """---
license: other
license_name: as-agreed-by-the-consortium
library_name: esn-federated
pipeline_tag: tabular-regression
tags:
- structural-connectome
- diffusion-mri
- epilepsy
- federated-learning
- differential-privacy
---
"""


def card_of(protocol: Protocol, result: StudyResult) -> str:
    """Return the card, Markdown with the front matter that Hugging Face reads.

    Parameters
    ----------
    protocol : Protocol
        Signed.
    result : StudyResult
        With everything that `missing_controls` asks for.

    """
    parts = (
        [f"# Severity model of the study {protocol.study}", ""],
        ["**Research use only. Not a medical device.**", ""],
        _simulated(protocol),
        _section("Intended use", [INTENDED_USE, "", f"Not intended: {NOT_INTENDED}"]),
        _section("What it was made of, beside the children", _inputs(protocol)),
        _section("Performance", _performance(protocol, result)),
        _section("Subgroups", _subgroups(protocol, result)),
        _section("Privacy, in the terms of NIST SP 800-226", _privacy(protocol, result)),
        _section("What is known not to hold", _limits(protocol, result)),
        _section("TRIPOD+AI", tripod(protocol, result)),
        _section("Use", _use()),
    )
    return _FRONT + "\n".join(line for part in parts for line in part)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _simulated(protocol: Protocol) -> list[str]:
    said = "**Every child of this study is simulated: the model knows no real child.**"
    return [said, ""] if protocol.simulated else []


def _inputs(protocol: Protocol) -> list[str]:
    """List the public inputs; the files of those that do not ship are in the model's file."""
    rows = [f"| {one.title} | {one.in_words} | {_hashes(one)} |" for one in protocol.public_inputs]
    return ["| public input | from | SHA-256 |", "|---|---|---|", *rows]


def _hashes(one: PublicInput) -> str:
    return ", ".join(f"{name}: `{digest}`" for name, digest in one.files.items())


def _performance(protocol: Protocol, result: StudyResult) -> list[str]:
    found = result.evaluation.estimates
    if found is None:
        return ["Not known."]
    rows = (
        ("held-out children", found.children),
        ("r of predicted and clinical GASE", found.r),
        ("mean absolute error, steps of GASE", found.mae),
        ("root mean squared error, steps of GASE", found.rmse),
        ("calibration slope", found.calibration_slope),
        ("calibration intercept, steps of GASE", found.calibration_intercept),
    )
    table = [
        "| in held-out children | value | 95 % interval, choice of children and noise |",
        "|---|---|---|",
    ]
    table += [
        f"| {name} | {fixed(one.value, 2)} | {interval(one.interval, 2)} |" for name, one in rows if one
    ]
    table += [f"| {words} | {fixed(r, 2)} | |" for words, r in _controls(result)]
    trained = (
        f"Trained by {protocol.training.in_words} on the severity network of "
        f"{result.severity_network.candidates} candidate connections of {protocol.imaging.atlas}. "
        "r is of the children of the sites that trained the model, and was not adjusted for sites."
    )
    return [*table, "", trained]


def _controls(result: StudyResult) -> Iterator[tuple[str, float | None]]:
    for number, draw in enumerate(result.random_score.draws if result.random_score else (), start=1):
        yield f"r after training on random scores, draw {number}", draw.r
    if result.cross_site is not None:
        yield "r of children of a site that took no part in training", result.cross_site.together.r


def _subgroups(protocol: Protocol, result: StudyResult) -> list[str]:
    """Say how it does by level of GASE, and by sex and age where the protocol asked."""
    levels = [level for level in result.evaluation.by_gase if level.mean_prediction is not None]
    table = ["| clinical GASE | children | mean prediction |", "|---|---|---|"]
    table += [
        f"| {one.gase} | {fixed(one.children, 0)} | {fixed(one.mean_prediction, 2)} |" for one in levels
    ]
    ages = ""
    if result.cohort is not None:
        own, sd = result.cohort.children, children_of(protocol, result).sd_age_years
        spread = "their spread is not told from the noise" if sd is None else f"sd {fixed(sd, 1)}"
        ages = (
            f" The training children are {fixed(own.mean_age_years, 1)} years old on average "
            f"({spread}); the share of boys is {fixed(own.share_male, 2)}."
        )
    if result.subgroups is None:
        table += ["", "Performance by sex and age was not asked for, and by site not released." + ages]
        return table
    table += ["", "| held-out children | children | r (95 %) |", "|---|---|---|"]
    for group in result.subgroups:
        told = group.estimates
        if told is None or told.r is None:
            table.append(f"| {group.name} | too few | |")
        else:
            r = f"{fixed(told.r.value, 2)} ({interval(told.r.interval, 2)})"
            table.append(f"| {group.name} | {fixed(told.children.value, 0)} | {r} |")
    return [*table, "", "Performance by site was not released." + ages]


def _privacy(protocol: Protocol, result: StudyResult) -> list[str]:
    price, rules = price_of(protocol), protocol.privacy
    epsilons = (result.privacy.epsilon_training_child, result.privacy.epsilon_held_out_child)
    training, held_out = ("no bound" if e is None else fixed(e, 2) for e in epsilons)
    exact = ", ".join(phase.phase for phase in price.exact) or "none"
    if rules.noise == "none":
        exact = "all of them"
    trust = {
        "secure-sum": "masks hide each site's sums from the centre; noise is shared by the sites, and "
        f"{rules.colluding_sites} of them may side with the centre",
        "local": "each site adds all of the noise to its own sums; nobody else is trusted",
    }[rules.trust]
    return [
        "| term | here |",
        "|---|---|",
        f"| unit of privacy | {UNIT} |",
        f"| adjacency | {ADJACENCY} |",
        f"| mechanism | {'discrete Gaussian noise' if rules.noise != 'none' else 'none: sums are exact'} |",
        f"| ε of a training child | {training} |",
        f"| ε of a held-out child | {held_out} |",
        f"| δ | {rules.delta:g} |",
        "| composition | all releases of the study together, Gaussian differential privacy, no sampling |",
        f"| trust | {trust} |",
        f"| exact releases | {exact} |",
        f"| controls | {controls_note(protocol)} |",
        "| what the model adds | nothing: it is computed from the sums above |",
    ]


def _limits(protocol: Protocol, result: StudyResult) -> list[str]:
    said = [*(caution.words for caution in cautions(protocol)), *result.warnings]
    return [f"* {words}" for words in dict.fromkeys(said)] or ["Nothing beyond what stands above."]


def _use() -> list[str]:
    checks = (
        "It needs no network and no account. `model.json` names the hash of every part; the centre and every "
        "site have signed it, and `esn-client predict` checks all of it."
    )
    return [
        "```text",
        "esn-client predict MODEL BIDS_DIR --derivatives DERIVATIVES --participant-label 012 --out OUT",
        "```",
        "",
        checks,
    ]
