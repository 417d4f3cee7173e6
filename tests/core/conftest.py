"""Hypothesis without its deadline: no test of the core asserts a duration."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
