"""The effective configuration, defaults and all, as TOML that lbproc would read again.

Owns the form of ``config show``. Secrets do not show: of one from the environment or a file the name is
written, of one that stood in the configuration itself three stars, which no configuration is accepted with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    from lbproc.config.model import Config


def effective(config: Config) -> dict[str, Any]:
    """All keys and values as TOML has them. What is absent, and lists that hold nothing, are left out."""
    return {key: _without_empty_lists(value) for key, value in config.model_dump(exclude_none=True).items()}


def render_config(config: Config) -> str:
    """The effective configuration as TOML text."""
    return tomli_w.dumps(effective(config), indent=2)


def _without_empty_lists(value: Any) -> Any:  # noqa: ANN401  whatever TOML can hold
    """A value whose tables hold no empty lists: a condition of nothing would be refused."""
    if isinstance(value, dict):
        return {key: _without_empty_lists(inner) for key, inner in value.items() if inner != ()}
    return [_without_empty_lists(inner) for inner in value] if isinstance(value, tuple) else value
