"""What stands between the internet and the SuperLink.

Begin with `server`.
"""
