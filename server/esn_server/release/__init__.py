"""Release of a model after a study: what must be there, what is written, who signs it.

Begin with `release`: a proposal to the sites, and the model that all of them countersigned.
"""
