"""The arithmetic of limits, apart from the table that holds their state."""

from __future__ import annotations
