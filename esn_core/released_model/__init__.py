"""The released model: one signed file with all that it takes to predict, and what must be known of it.

Begin with `archive`: what stands in the file, and how it is read.
"""
