"""`python -m penstock` is the program `penstock`."""

import sys

from penstock.command import main

sys.exit(main())
