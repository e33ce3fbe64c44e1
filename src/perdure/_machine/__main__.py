"""Write the page about a package's state machines to standard output: `python -m perdure._machine PACKAGE`."""

from __future__ import annotations

import sys

from perdure._machine._diagram import page

sys.stdout.write(page(sys.argv[1]))
