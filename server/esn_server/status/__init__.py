"""How a centre and its studies stand."""
