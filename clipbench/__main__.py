"""The command line as `python -m clipbench`."""

from clipbench.cli import main

if __name__ == "__main__":
    main()
