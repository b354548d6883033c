"""The connection to the centre; it knows no data.

Begin with `guard`: it takes a question from Flower, hands its bytes to the worker, and sends back the bytes
that it is given.
"""
