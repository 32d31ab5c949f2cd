"""The names of the policies and what each says of itself."""

from __future__ import annotations

from lbproc.core.policies.registry import REGISTRY


def test_the_registry_holds_the_documented_policies() -> None:
    assert set(REGISTRY) == {
        "consistent_hash",
        "first_available",
        "ip_hash",
        "least_connections",
        "power_of_two",
        "random",
        "round_robin",
    }


def test_policies_say_what_they_look_at() -> None:
    hashing = {name for name, policy in REGISTRY.items() if policy().needs_key}
    exact = {name for name, policy in REGISTRY.items() if policy().exact}
    fixed = {name: policy().fixed_key for name, policy in REGISTRY.items() if policy().fixed_key}
    assert hashing == {"ip_hash", "consistent_hash"}
    assert exact == {"least_connections", "power_of_two", "consistent_hash"}
    assert fixed == {"ip_hash": "client_ip"}
