"""What the signal says of fibres: tensor, response, orientations.

Begin with `fodf`.
"""
