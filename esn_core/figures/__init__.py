"""Figures of both sides, as SVG inside a page; matplotlib and nilearn come with the extras of either side.

Begin with `drawing`: a figure, with the words that stand for it.
"""
