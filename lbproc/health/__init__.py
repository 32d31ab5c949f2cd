"""Active checks: probing backends, and telling the table what follows from it. Part of the controller."""

from __future__ import annotations
