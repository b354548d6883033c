"""What a site reads and approves before it answers.

Begin with `review`: a protocol in plain words.
"""
