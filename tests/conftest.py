"""What all tests share."""

from hypothesis import settings

# A loaded machine is no defect: no example is timed. The same examples are drawn in every run.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
