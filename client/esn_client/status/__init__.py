"""What a site can be told about itself: whether it is ready to join, and what it has answered and spent.

Begin with `preflight`.
"""
