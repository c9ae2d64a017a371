"""Entry point of ``python -m vlmreward``."""

import sys

from vlmreward.cli import main

if __name__ == "__main__":
    sys.exit(main())
