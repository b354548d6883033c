"""What a coordinator can be told about a centre: who is connected, what runs, and when it will be done.

Begin with `status`.
"""
