"""Side-by-side measurements of lbproc and other proxies. Reports; never a test that fails on a slow day."""

from __future__ import annotations
