"""What a site answers about the exact severity network: moments, and draws with secret numbers."""

from esn_client.answers.study import Study
from esn_client.gate.gate import Rows
from esn_core.arrays import Floats
from esn_core.privacy.secret_normals import secret_normals
from esn_core.protocol.analyses import DRAWS_AT_ONCE
from esn_core.severity_network.bootstrap import Partial, network_bootstrap, network_bootstrap_rows
from esn_core.severity_network.exact_releases import (
    design,
    network,
    network_null,
    network_null_rows,
    network_rows,
)
from esn_core.transcript.arguments import Arguments


def moments(_asked: Arguments, study: Study) -> Rows:
    """Sum the products of severity, age, sex and edges about the site's means."""
    scores, designs, participants = _children(study)
    return Rows(network(scores.shape[1]), network_rows(scores, designs), participants)


def null(_asked: Arguments, study: Study) -> Rows:
    """Sum the same products with secret numbers in the place of severity."""
    scores, designs, participants = _children(study)
    numbers = secret_normals(len(scores), DRAWS_AT_ONCE)
    rows = network_null_rows(scores, designs, numbers)
    return Rows(network_null(scores.shape[1], DRAWS_AT_ONCE), rows, participants)


def bootstrap(asked: Arguments, study: Study) -> Rows:
    """Sum the children's influences on the correlations, weighed by secret numbers."""
    scores, designs, participants = _children(study)
    partial = Partial.from_vector(asked.array("partial"), edges=scores.shape[1])
    numbers = secret_normals(len(scores), DRAWS_AT_ONCE)
    rows = network_bootstrap_rows(scores, designs, numbers, partial)
    return Rows(network_bootstrap(scores.shape[1], DRAWS_AT_ONCE), rows, participants)


def _children(study: Study) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Return candidate scores, design and labels of the training children."""
    split = study.cohort.training
    designs = design(split.gase, split.age_years, split.sex)
    return split.scores[:, study.candidates.edges], designs, split.participants
