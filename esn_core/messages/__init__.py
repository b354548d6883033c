"""What travels between centre and sites: questions, answers, and their envelope."""
