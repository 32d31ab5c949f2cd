"""The admin HTTP listener: health of lbproc itself and its metrics. Part of the controller."""

from __future__ import annotations
