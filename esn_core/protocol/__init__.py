"""The protocol of a study: its rules, its phases, its price and its signature.

Begin with `protocol`. What is asked, in which order and of which children, is in `phases`; what that costs
a child is in `price`.
"""
