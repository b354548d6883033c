"""The epilepsy severity network: its candidates, its selection, its stability.

Begin with `selection`, the private network that the model is trained on. The network of the paper, from
exact sums, begins with `exact`.
"""
