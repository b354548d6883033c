"""From raw volumes to clean ones: gradients, noise, motion, mask.

Begin with `gradient_table`.
"""
