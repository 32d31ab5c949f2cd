"""TLS over any transport, the contexts it needs, and the keys of session tickets."""

from __future__ import annotations
