"""The transcript of a study: what was released so far, and what is asked next for that reason alone.

Begin with `course`: it computes the numbers that a question is asked with, at the centre and at every site.
"""
