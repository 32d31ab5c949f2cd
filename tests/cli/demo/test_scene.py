from __future__ import annotations

import pytest

from lbproc.cli.demo.scene import WINDOW, Sampler, WorkerScene
from tests.cli.demo.statuses import status


def test_first_scene_has_counts_and_no_rates() -> None:
    scene = Sampler().observe(100.0, status({"a": 30, "b": 10}, in_flight=2))
    assert (scene.elapsed, scene.requests, scene.rate) == (0.0, 40, 0.0)
    assert [(b.name, b.address, b.requests, b.share, b.rate, b.in_flight) for b in scene.backends] == [
        ("a", "127.0.0.1:9001", 30, 0.75, 0.0, 2),
        ("b", "127.0.0.1:9002", 10, 0.25, 0.0, 2),
    ]
    assert scene.workers == (WorkerScene(0, 4242, "ready", 3, 40, 1),)


def test_no_requests_yet_means_no_shares() -> None:
    scene = Sampler().observe(0.0, status({"a": 0, "b": 0}))
    assert [backend.share for backend in scene.backends] == [0.0, 0.0]


def test_rates_are_averages_over_the_window() -> None:
    sampler = Sampler()
    for tenth in range(51):  # 5 s at 100 requests a second, the first second at 1000
        count = 100 * tenth if tenth <= 10 else 1000 + 10 * (tenth - 10)
        scene = sampler.observe(tenth / 10, status({"a": count}))
    assert scene.elapsed == 5.0
    assert scene.backends[0].rate == pytest.approx(100)
    assert scene.rate == pytest.approx(100)


def test_a_pause_longer_than_the_window_still_gives_a_rate() -> None:
    sampler = Sampler()
    sampler.observe(0.0, status({"a": 0}))
    sampler.observe(0.1, status({"a": 0}))
    scene = sampler.observe(0.1 + 5 * WINDOW, status({"a": 50}))
    assert scene.rate == pytest.approx(50 / (5 * WINDOW))


def test_two_statuses_at_one_instant_have_no_rate() -> None:
    sampler = Sampler()
    sampler.observe(1.0, status({"a": 0}))
    assert sampler.observe(1.0, status({"a": 9})).rate == 0.0


def test_backend_that_appears_counts_from_nothing() -> None:
    sampler = Sampler()
    sampler.observe(0.0, status({"a": 1}))
    assert sampler.observe(1.0, status({"a": 1, "b": 5})).backends[1].rate == pytest.approx(5)
