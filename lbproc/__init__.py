"""lbproc: a load balancer for multicore Linux hosts, exact over all its workers."""

from __future__ import annotations

__version__ = "0.1.0"
