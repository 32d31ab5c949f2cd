"""What operators changed wins until it is reset, or until that very value changes in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbproc.config.model import BackendConfig, Config
from lbproc.core.control.overrides import NOTHING, Member, Overrides, PoolOverrides
from lbproc.types import Admin

ADDRESSES = tuple(f"10.0.0.{number}:80" for number in range(1, 6))
A, B, C, D, _ = ADDRESSES
POOLS = ("api", "web")

File = dict[str, dict[str, int]]
"""Pool → address → weight."""


def config(file: File) -> Config:
    return Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:80"}},
            "pools": {
                name: {"backends": [{"address": a, "weight": weight} for a, weight in backends.items()]}
                for name, backends in file.items()
            },
        }
    )


def members(overrides: Overrides, file: File, pool: str = "web") -> dict[str, Member]:
    found = overrides.of(pool).members(config(file).pools[pool])
    return {member.address: member for member in found}


def weights(overrides: Overrides, file: File) -> dict[str, int]:
    return {address: member.config.weight for address, member in members(overrides, file).items()}


def backend(address: str, **rest: Any) -> BackendConfig:
    return BackendConfig.model_validate({"address": address, **rest})


def test_without_overrides_the_file_is_in_force() -> None:
    file = {"web": {A: 1, B: 2}}
    assert weights(Overrides(), file) == {A: 1, B: 2}
    assert all(member == Member(member.config) for member in members(Overrides(), file).values())


def test_a_weight_wins_until_the_file_gives_another_one() -> None:
    old: File = {"web": {A: 1, B: 2}}
    overrides = Overrides().with_weight("web", config(old).pools["web"], A, 9)
    assert weights(overrides, old) == {A: 9, B: 2}
    assert members(overrides, old)[A].overridden == ("weight",)
    same: File = {"web": {B: 7, A: 1, C: 3}}
    kept = overrides.after_reload(config(old), config(same))
    assert weights(kept, same) == {B: 7, A: 9, C: 3}
    other: File = {"web": {A: 2, B: 7}}
    assert kept.after_reload(config(same), config(other)) == Overrides()


def test_a_weight_is_reset_by_hand_and_by_its_own_value() -> None:
    pool = config({"web": {A: 1}}).pools["web"]
    overrides = Overrides().with_weight("web", pool, A, 9)
    assert overrides.with_weight("web", pool, A, None) == Overrides()
    assert overrides.with_weight("web", pool, A, 1) == Overrides()


def test_an_admin_state_lasts_until_ready() -> None:
    old: File = {"web": {A: 1, B: 1}}
    overrides = Overrides().with_admin("web", A, Admin.DRAIN)
    new: File = {"web": {A: 5, C: 1}}
    kept = overrides.after_reload(config(old), config(new))
    assert members(kept, new)[A].admin is Admin.DRAIN
    assert members(kept, new)[A].overridden == ("admin",)
    assert kept.with_admin("web", A, Admin.READY) == Overrides()


def test_what_goes_takes_its_overrides_along() -> None:
    old: File = {"web": {A: 1, B: 1}, "api": {A: 1}}
    pools = config(old).pools
    overrides = (
        Overrides()
        .with_admin("web", A, Admin.MAINTENANCE)
        .with_weight("web", pools["web"], A, 5)
        .with_weight("api", pools["api"], A, 5)
        .with_backend("api", pools["api"], backend(D))
    )
    new: File = {"web": {B: 1}}
    assert overrides.after_reload(config(old), config(new)) == Overrides()


def test_a_removed_one_stays_away_until_the_file_forgets_it_or_it_is_added_again() -> None:
    old: File = {"web": {A: 1, B: 1}}
    overrides = Overrides().with_weight("web", config(old).pools["web"], A, 5)
    overrides = overrides.without_backend("web", config(old).pools["web"], A)
    assert weights(overrides, old) == {B: 1}
    same: File = {"web": {A: 8, B: 1}}
    kept = overrides.after_reload(config(old), config(same))
    assert weights(kept, same) == {B: 1}
    assert weights(kept.with_backend("web", config(same).pools["web"], backend(A)), same) == {A: 8, B: 1}
    forgotten = kept.after_reload(config(same), config({"web": {B: 1}}))
    assert forgotten == Overrides()


def test_an_added_one_becomes_the_files() -> None:
    old: File = {"web": {A: 1}}
    pool = config(old).pools["web"]
    overrides = Overrides().with_backend("web", pool, backend(B, weight=3))
    overrides = overrides.with_weight("web", pool, B, 4).with_admin("web", B, Admin.DRAIN)
    assert members(overrides, old)[B].overridden == ("admin", "weight", "added")
    kept = overrides.after_reload(config(old), config({"web": {C: 1}}))
    assert weights(kept, {"web": {C: 1}}) == {C: 1, B: 4}
    new: File = {"web": {B: 7}}
    adopted = kept.after_reload(config({"web": {C: 1}}), config(new))
    assert weights(adopted, new) == {B: 7}
    assert members(adopted, new)[B].overridden == ("admin",)


def test_an_added_one_that_is_removed_leaves_nothing() -> None:
    pool = config({"web": {A: 1}}).pools["web"]
    overrides = Overrides().with_backend("web", pool, backend(B, weight=3))
    overrides = overrides.with_weight("web", pool, B, 4).with_admin("web", B, Admin.DRAIN)
    assert overrides.without_backend("web", pool, B) == Overrides()


def test_removals_that_would_leave_nobody_are_forgotten() -> None:
    old: File = {"web": {A: 1, B: 1}}
    overrides = Overrides().without_backend("web", config(old).pools["web"], A)
    assert overrides.after_reload(config(old), config({"web": {A: 1}})) == Overrides()


def test_names_differ_also_when_the_file_takes_one_that_an_added_one_had() -> None:
    pool = Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:80"}},
            "pools": {"web": {"backends": [{"address": A, "name": "x"}, {"address": C, "name": D}]}},
        }
    ).pools["web"]
    added = {B: backend(B, name="x"), D: backend(D)}
    found = PoolOverrides(added=added).members(pool)
    assert [member.name for member in found] == ["x", D, B, f"{D}+"]


def test_nothing_is_nothing() -> None:
    assert Overrides().of("web") is NOTHING
    assert Overrides().with_admin("web", A, Admin.READY) == Overrides()


# Histories: a reference that keeps, for every value, what was said last and by whom


@dataclass
class Expected:
    """What a backend should be: each value with whether an operator said it."""

    weight: int | None = None
    admin: Admin = Admin.READY
    added_weight: int | None = None
    is_removed: bool = False


@dataclass
class Reference:
    """The rules, one backend at a time and in other words."""

    backends: dict[tuple[str, str], Expected] = field(default_factory=dict)

    def of(self, pool: str, address: str) -> Expected:
        return self.backends.setdefault((pool, address), Expected())

    def reload(self, old: File, new: File) -> None:
        for (pool, address), expected in list(self.backends.items()):
            before = old.get(pool, {}).get(address)
            after = new.get(pool, {}).get(address)
            if pool not in new or (after is None and expected.added_weight is None):
                del self.backends[pool, address]
                continue
            if after is not None and (before is None or before != after):
                expected.weight = None
            if after is not None:
                expected.added_weight = None
        for pool, backends in new.items():
            if all(self.of(pool, address).is_removed for address in backends) and not any(
                key == pool and expected.added_weight is not None
                for (key, _), expected in self.backends.items()
            ):
                for address in backends:
                    self.of(pool, address).is_removed = False

    def weights(self, file: File, pool: str) -> dict[str, int]:
        found = {}
        for address in ADDRESSES:
            expected, own = self.of(pool, address), file[pool].get(address)
            own = expected.added_weight if own is None else own
            if own is not None and not expected.is_removed:
                found[address] = own if expected.weight is None else expected.weight
        return found


files = st.dictionaries(
    st.sampled_from(POOLS),
    st.dictionaries(st.sampled_from(ADDRESSES), st.integers(0, 3), min_size=1),
    min_size=1,
)


class Histories(RuleBasedStateMachine):
    """Commands and reloads in any order."""

    @initialize(file=files)
    def start(self, file: File) -> None:
        self.file = file
        self.overrides = Overrides()
        self.reference = Reference()

    def present(self) -> list[tuple[str, str]]:
        return [(pool, a) for pool in self.file for a in members(self.overrides, self.file, pool)]

    @rule(data=st.data(), weight=st.integers(0, 3) | st.none())
    def weigh(self, data: st.DataObject, weight: int | None) -> None:
        pool, address = data.draw(st.sampled_from(self.present()))
        self.overrides = self.overrides.with_weight(pool, config(self.file).pools[pool], address, weight)
        expected = self.reference.of(pool, address)
        own = self.file[pool].get(address, expected.added_weight)
        expected.weight = None if weight == own else weight

    @rule(data=st.data(), state=st.sampled_from(Admin))
    def set_state(self, data: st.DataObject, state: Admin) -> None:
        pool, address = data.draw(st.sampled_from(self.present()))
        self.overrides = self.overrides.with_admin(pool, address, state)
        self.reference.of(pool, address).admin = state

    @precondition(lambda self: any(len(members(self.overrides, self.file, pool)) > 1 for pool in self.file))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        choices = [key for key in self.present() if len(members(self.overrides, self.file, key[0])) > 1]
        pool, address = data.draw(st.sampled_from(choices))
        self.overrides = self.overrides.without_backend(pool, config(self.file).pools[pool], address)
        self.reference.backends[pool, address] = Expected(is_removed=address in self.file[pool])

    @rule(data=st.data(), weight=st.integers(0, 3))
    def add(self, data: st.DataObject, weight: int) -> None:
        absent = [(pool, a) for pool in self.file for a in ADDRESSES if (pool, a) not in self.present()]
        if not absent:
            return
        pool, address = data.draw(st.sampled_from(absent))
        added = backend(address, weight=weight)
        self.overrides = self.overrides.with_backend(pool, config(self.file).pools[pool], added)
        is_files = address in self.file[pool]
        self.reference.backends[pool, address] = Expected(added_weight=None if is_files else weight)

    @rule(file=files)
    def reload(self, file: File) -> None:
        self.overrides = self.overrides.after_reload(config(self.file), config(file))
        self.reference.reload(self.file, file)
        self.file = file

    @invariant()
    def it_is_as_the_reference_has_it(self) -> None:
        for pool in self.file:
            found = members(self.overrides, self.file, pool)
            in_force = {address: member.config.weight for address, member in found.items()}
            assert in_force == self.reference.weights(self.file, pool)
            assert in_force
            assert len({member.name for member in found.values()}) == len(found)
            for address, member in found.items():
                expected = self.reference.of(pool, address)
                assert member.admin is expected.admin
                marks = {
                    "admin": expected.admin is not Admin.READY,
                    "weight": expected.weight is not None,
                    "added": address not in self.file[pool],
                }
                assert member.overridden == tuple(mark for mark, is_so in marks.items() if is_so)

    @invariant()
    def nothing_is_kept_that_changes_nothing(self) -> None:
        assert set(self.overrides.pools) <= set(self.file)
        assert NOTHING not in self.overrides.pools.values()
        unchanged = self.overrides.after_reload(config(self.file), config(self.file))
        assert unchanged == self.overrides


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(old=files, new=files)
def test_without_overrides_a_reload_leaves_none(old: File, new: File) -> None:
    assert Overrides().after_reload(config(old), config(new)) == Overrides()
