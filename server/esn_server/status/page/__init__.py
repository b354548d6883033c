"""A live page of a centre's status, on this machine's loopback interface.

Begin with `serving`.
"""
