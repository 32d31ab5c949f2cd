"""Plumbing between sockets and trio that knows nothing of balancing."""

from __future__ import annotations
