"""A site's children and controls.

Begin with `cohort`: who takes part, in which split, with which edge scores.
"""
