"""Where the addresses of backends come from, apart from the configuration. Part of the controller."""

from __future__ import annotations
