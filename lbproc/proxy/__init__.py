"""The trio shells of the data path: they drive the decisions of ``core`` with the bytes of ``net``."""

from __future__ import annotations
