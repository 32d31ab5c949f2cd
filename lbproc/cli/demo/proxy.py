"""The demo's balancer: an ordinary ``lbproc run`` that ends with the demo.

Run as ``python -m lbproc.cli.demo.proxy PARENT_PID FILE``.
"""

from __future__ import annotations

import sys

from lbproc.cli.demo.leash import tie_to_parent
from lbproc.cli.group import main

if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    main(["run", "-c", sys.argv[2]], prog_name="lbproc")
