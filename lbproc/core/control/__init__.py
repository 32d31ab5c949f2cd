"""The control protocol, sans-io: what supervisor, children and command line say, and its bytes."""

from __future__ import annotations
