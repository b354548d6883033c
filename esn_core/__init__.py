"""Numbers and formats shared by hospitals and the coordinating centre; no Flower, no DIPY, no NIfTI.

Both sides install the same version of it. Begin with `protocol.protocol` for what a study is, with
`privacy.release` for what may leave a hospital, and with `errors` for what can go wrong.
"""
