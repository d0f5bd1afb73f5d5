"""Being here puts this folder on the import path: `golden_rule` and `tiny` serve the tests of every folder."""
