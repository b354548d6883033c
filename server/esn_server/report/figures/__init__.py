"""The figures of a report.

Begin with `drawing`: what a figure is. The others each draw one subject.
"""
