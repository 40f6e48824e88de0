"""How hypothesis behaves in the unit tests: the same examples in each run, and not too many."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("unit")
