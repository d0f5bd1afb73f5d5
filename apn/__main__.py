"""`python -m apn`, and the `apn` command."""

from apn.cli import main

if __name__ == "__main__":
    main()
