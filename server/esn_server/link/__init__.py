"""The connection to Flower.

Begin with `flower_run`: one Flower run of a study. `lasting_link` makes one study of as many as it takes.
"""
