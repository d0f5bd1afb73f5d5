"""Being here puts this folder on the import path: `golden_rule` and `tiny` serve the tests of every folder."""

from hypothesis import settings

# A shared machine may stall for seconds, which says nothing about the code; the same examples every time.
settings.register_profile("apn", deadline=None, derandomize=True)
settings.load_profile("apn")
