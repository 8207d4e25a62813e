"""`python -m armillary`."""

import sys

from armillary.cli import main

sys.exit(main())
