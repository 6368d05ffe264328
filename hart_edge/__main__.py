"""`python -m hart_edge` does what the console script hart-edge does."""

import sys

from hart_edge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
