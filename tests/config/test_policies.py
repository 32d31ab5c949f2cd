from __future__ import annotations

import re
from pathlib import Path

from lbproc.config.model import PoolConfig
from lbproc.config.policies import POLICIES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_first_policy_is_the_default_of_a_pool() -> None:
    assert PoolConfig.model_fields["policy"].default == POLICIES[0] == "least_connections"


def test_the_documentation_names_every_policy_in_this_order() -> None:
    page = (DOCS / "policies.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \| [a-z]", page, re.MULTILINE)) == POLICIES
    assert tuple(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == POLICIES
