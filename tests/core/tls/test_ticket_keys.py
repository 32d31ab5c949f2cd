from __future__ import annotations

import pytest

from lbproc.core.tls.ticket_keys import EPOCH, KEY_SIZE, ROOT_SIZE, TicketRoot, epoch_at, hkdf_sha256

ROOT = TicketRoot(7, bytes(range(ROOT_SIZE)))


@pytest.mark.parametrize(
    ("secret", "salt", "info", "size", "output"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_bytes_follow_as_rfc_5869_has_them(secret: str, salt: str, info: str, size: int, output: str) -> None:
    found = hkdf_sha256(bytes.fromhex(secret), bytes.fromhex(info), size, bytes.fromhex(salt))
    assert found.hex() == output


def test_every_process_comes_to_the_same_root_whenever_it_looks() -> None:
    step_by_step = ROOT.at(8).at(9).at(10)
    assert step_by_step == ROOT.at(10)
    assert step_by_step.epoch == 10


def test_no_process_goes_back() -> None:
    assert ROOT.at(7) is ROOT
    assert ROOT.at(3) is ROOT


def test_every_domain_and_every_epoch_has_a_key_of_its_own() -> None:
    keys = {
        ROOT.at(epoch).key(domain) for epoch in range(7, 12) for domain in ("web\0", "web\0required x", "")
    }
    assert len(keys) == 15
    assert {len(key) for key in keys} == {KEY_SIZE}
    # The names are different too, by which OpenSSL finds the key of a ticket.
    assert len({key[:16] for key in keys}) == 15


def test_epochs_are_multiples_of_the_clock() -> None:
    assert [epoch_at(now) for now in (0.0, EPOCH - 0.001, EPOCH, 10.5 * EPOCH)] == [0, 0, 1, 10]


def test_a_root_does_not_show_its_secret() -> None:
    assert repr(ROOT) == "TicketRoot(epoch=7)"
    with pytest.raises(ValueError, match="32 bytes"):
        TicketRoot(0, b"short")
