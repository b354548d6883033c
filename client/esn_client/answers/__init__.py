"""What a site computes for each question; the gate alone lets it go.

Begin with `hospital`: it reads a question, finds the function of its phase, and hands the rows to the gate.
"""
