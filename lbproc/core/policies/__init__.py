"""The balancing policies: which of the eligible backends gets a request. One module each, one registry."""

from __future__ import annotations
