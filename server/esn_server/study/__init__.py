"""A study, question by question, over any link.

Begin with `study` for the phases in their order, then `rounds` for one question to every site. Nothing
here knows of Flower: tests bring a link of their own.
"""
