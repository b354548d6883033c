"""What a site answers about ComBat, and how it harmonises its children with what all sites share.

A site's own shift and scale are computed anew for every question, from the model that all sites share, and
never leave. Not differentially private: a child's harmonised scores depend on the site's other
children, and a protocol that asks for them is without noise.
"""

from dataclasses import replace

import numpy as np

from esn_client.answers.study import Study
from esn_client.cohort.cohort import Split
from esn_client.gate.gate import Rows
from esn_core.arrays import Floats
from esn_core.gase import standardise_severity
from esn_core.statistics.combat import (
    COVARIATE_NORM,
    COVARIATES,
    ComBatModel,
    ComBatSite,
    combat,
    combat_rows,
    covariates_of,
)
from esn_core.transcript.arguments import Arguments


def sums(_asked: Arguments, study: Study) -> Rows:
    """Sum what ComBat's shared model needs over the training children, centred within the site."""
    split = study.cohort.training
    scores = split.scores[:, study.candidates.edges]
    rows = combat_rows(scores, _told(split), covariate_norm=COVARIATE_NORM)
    kind = combat(scores.shape[1], COVARIATES, covariate_norm=COVARIATE_NORM)
    return Rows(kind, rows, split.participants)


def harmonised(study: Study, shared: Floats) -> Study:
    """Return the study with the scanner's effects removed from all of its children's candidate edges.

    Parameters
    ----------
    study : Study
    shared : ((p + 2) d,) float64
        `ComBatModel.vector`, of the candidates.

    Raises
    ------
    DataError
        The model is none, or there are too few children to estimate the site's shift and scale.

    """
    edges, cohort = study.candidates.edges, study.cohort
    model = ComBatModel.from_vector(shared, edges=len(edges))
    training = cohort.training
    site = ComBatSite.estimate(training.scores[:, edges], _told(training), model)

    def clean(split: Split) -> Split:
        scores = split.scores.copy()
        scores[:, edges] = site.apply(scores[:, edges], _untold(split))
        return replace(split, scores=scores)

    return replace(study, cohort=replace(cohort, training=clean(training), held_out=clean(cohort.held_out)))


def _told(split: Split) -> Floats:
    return covariates_of(split.age_years, split.sex, standardise_severity(split.gase))


def _untold(split: Split) -> Floats:
    return covariates_of(split.age_years, split.sex, np.zeros(len(split.gase)))
