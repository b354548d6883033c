"""What travels between centre and sites: questions, answers, and their envelope.

Begin with `question`. At a site, answers are made by the gate and nowhere else.
"""
