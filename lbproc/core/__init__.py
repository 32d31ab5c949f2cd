"""Decisions without I/O: no socket, no clock, no global randomness, no shared memory."""

from __future__ import annotations
