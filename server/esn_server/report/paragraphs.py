"""Paragraphs for a paper: methods and results, from the result alone, in the order of TRIPOD+AI."""

from esn_core.system.pages import templates_of
from esn_server.report.result import Evaluation, StudyResult
from esn_server.report.verdict import likely_r
from esn_server.report.wording import count, fixed, interval

REFERENCES = (
    "Collins et al. 2024, TRIPOD+AI, BMJ 385:e078378",
    "Jeong et al. 2025, Ann Clin Transl Neurol, doi 10.1002/acn3.70217",
    "Bonawitz et al. 2017, practical secure aggregation, CCS",
    "Dong, Roth & Su 2022, Gaussian differential privacy, J R Stat Soc B 84:3",
)


def headline(evaluation: Evaluation) -> str:
    """Say in one sentence what was found, with its uncertainty."""
    likely = likely_r(evaluation)
    if likely is None:
        why = evaluation.undefined_because or "the sums hold no interval that includes the privacy noise"
        return f"Nothing can be said of how the prediction follows clinical severity: {why}."
    low, high = likely.interval
    if low > 0:
        how = "The prediction follows clinical severity in held-out children"
    elif high < 0:
        how = "The prediction runs against clinical severity in held-out children"
    else:
        how = "The study does not show that the prediction follows clinical severity in held-out children"
    return f"{how}: r {fixed(likely.value, 2)} (95 % interval {interval(likely.interval, 2)})."


def methods(result: StudyResult) -> str:
    """Return a paragraph on methods."""
    return _paragraph("methods.txt.j2", result)


def results(result: StudyResult) -> str:
    """Return a paragraph on results."""
    return _paragraph("results.txt.j2", result)


def _paragraph(name: str, result: StudyResult) -> str:
    templates = templates_of("esn_server.report", html=False)
    templates.filters |= {"fixed": fixed, "interval": interval, "count": count}
    text = templates.get_template(name).render(
        result=result,
        network=result.severity_network,
        privacy=result.privacy,
        told=result.evaluation.estimates,
        headline=headline(result.evaluation),
    )
    return " ".join(text.split())
