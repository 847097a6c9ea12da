"""The command `clipbench`, and `python -m clipbench`. Ctrl-C while it is loaded leaves no traceback."""

import os
import sys


def main() -> None:
    try:
        from clipbench.cli import main as command

        command()
    except KeyboardInterrupt:
        os.write(sys.stderr.fileno(), b"Interrupted. Run the same command to continue.\n")
        os._exit(130)


if __name__ == "__main__":
    main()
