"""From raw diffusion MRI to a connectome, one subject at a time.

Begin with `pipeline.reconstruction`, which has every stage in its order. What is done is written
in the protocol's imaging recipe (`esn_core.protocol.imaging_recipe`); nothing here sends anything.

DIPY is imported by the functions that use it: it takes a second, and whoever only asks which files a visit
has, or starts the processes that do the work, does not need it.
"""
