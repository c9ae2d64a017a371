"""Entry point of `python -m vlmreward_3d`."""

import sys

from vlmreward_3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
