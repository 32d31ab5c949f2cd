"""The memo: admitted at the second sighting, bounded, and left alone by those who never repeat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.memo import Memo


def test_a_key_is_kept_from_its_second_sighting_on() -> None:
    memo: Memo[int] = Memo(4, 100)
    memo.offer(b"key", 1)
    assert memo.get(b"key") is None
    memo.offer(b"key", 2)
    assert memo.get(b"key") == 2


def test_keys_that_never_repeat_leave_what_is_known_untouched() -> None:
    memo: Memo[int] = Memo(4, 100)
    for _ in range(2):
        memo.offer(b"honest", 1)
    for number in range(10_000):
        memo.offer(b"%d" % number, 0)
    assert memo.get(b"honest") == 1
    assert len(memo) == 1


def test_a_full_memo_begins_anew() -> None:
    memo: Memo[int] = Memo(4, 100)
    for number in range(5):
        for _ in range(2):
            memo.offer(b"%d" % number, number)
    assert memo.get(b"4") == 4
    assert len(memo) == 1


def test_a_long_key_is_not_kept() -> None:
    memo: Memo[int] = Memo(4, 8)
    for _ in range(3):
        memo.offer(b"123456789", 1)
        memo.offer(b"12345678", 1)
    assert memo.get(b"123456789") is None
    assert memo.get(b"12345678") == 1


def test_the_empty_key_whose_hash_is_0_is_kept_like_others() -> None:
    memo: Memo[int] = Memo(4, 8)
    memo.offer(b"", 1)
    assert memo.get(b"") is None
    memo.offer(b"", 2)
    assert memo.get(b"") == 2


@given(st.lists(st.binary(max_size=3)), st.integers(1, 8))
def test_it_answers_what_was_offered_and_never_grows_beyond_its_bound(keys: list[bytes], bound: int) -> None:
    memo: Memo[bytes] = Memo(bound, 2)
    seen: set[bytes] = set()
    for key in keys:
        memo.offer(key, key)
        assert memo.get(key) in ((None, key) if key in seen else (None,))
        assert len(memo) <= bound
        seen.add(key)


def test_a_closed_memo_forgets_and_keeps_nothing() -> None:
    memo: Memo[int] = Memo(4, 100)
    for _ in range(2):
        memo.offer(b"key", 1)
    memo.close()
    for _ in range(3):
        memo.offer(b"key", 1)
    assert memo.get(b"key") is None
    assert len(memo) == 0
