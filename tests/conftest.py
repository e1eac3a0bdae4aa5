"""How the tests run: the same random input every time, unless new input is asked for."""

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)  # HYPOTHESIS_PROFILE=explore python -m pytest
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
