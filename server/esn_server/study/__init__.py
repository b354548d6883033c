"""A study, question by question, over any link."""
