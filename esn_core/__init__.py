"""Numbers shared by hospitals and the coordinating centre; no Flower, no DIPY, no NIfTI."""
