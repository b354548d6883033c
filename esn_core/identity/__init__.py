"""Who is who: keys, signatures, certificates, and the roster of a study.

Begin with `roster`: the keys by which the sites of a study are known.
"""
