"""The coordinating centre: the study, the link to the sites, the report.

Begin with `study.study`, which has all phases in their order; then `study.rounds`, which asks one question
of every site; then `report.result` for what comes of it.
"""
