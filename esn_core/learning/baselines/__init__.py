"""What the severity model is compared with.

Begin with `predictors`: the one table of all of them. They are trained without privacy, in simulation or
inside one site.
"""
