"""The arithmetic of rate limits: one decision of the generic cell rate algorithm.

The whole state of a bucket is one instant, the arrival time: when the bucket will be full again. Every
admitted request moves it on by one interval; a request that would move it further than a whole burst into the
future is refused. ITU-T I.371, Annex A. No clock and no table here: whoever holds the arrival time swaps the
old value for the new one in one step, and asks again when somebody else was faster.

All instants and spans are integer nanoseconds on the clock of the table.

Invariants: an interval is rounded up, so a limit never admits more than its rate; over any window of ``t`` it
admits at most ``burst + rate * t``; a refusal changes nothing; an arrival time never lies further ahead than
a whole burst.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one request.

    Attributes:
        admitted: whether it may pass.
        arrival_at: the arrival time to store; the old one when refused.
        retry_after: how long until it would be admitted if nobody else came; 0 when admitted. A cost
            above the burst is never admitted: then how long until the bucket is full.
        remaining: how many requests of cost 1 would be admitted right after this one.
    """

    admitted: bool
    arrival_at: int
    retry_after: int
    remaining: int


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How fast and how much at once.

    Attributes:
        interval: the time between two requests at exactly the rate.
        burst: what a full bucket admits at once, at least 1.
    """

    interval: int
    burst: int

    @classmethod
    def per(cls, amount: int, seconds: int, burst: int | None = None) -> RateLimit:
        """``amount`` requests in ``seconds``; the default of ``burst`` is one second's worth, at least 1."""
        interval = -(-seconds * SECOND // amount)
        return cls(interval, max(1, amount // seconds) if burst is None else burst)

    def decide(self, arrival_at: int, now: int, cost: int = 1) -> Decision:
        """Admit or refuse a request that counts as ``cost`` requests.

        Args:
            arrival_at: the arrival time as stored; 0 for a key never seen.
            now: the present instant; other processes may have stored a later one already.
            cost: at least 0.
        """
        interval = self.interval
        # The latest arrival time that may be reached: the bucket is empty then.
        latest = now + self.burst * interval
        start = max(arrival_at, now)
        end = start + cost * interval
        if end <= latest:
            return Decision(
                admitted=True, arrival_at=end, retry_after=0, remaining=(latest - end) // interval
            )
        return Decision(
            admitted=False,
            arrival_at=arrival_at,
            retry_after=start - now if cost > self.burst else end - latest,
            remaining=max(0, latest - start) // interval,
        )


def carried_over(arrival_at: int, now: int, old: RateLimit, new: RateLimit) -> int:
    """The arrival time of a bucket whose limit has changed: what was used up counts on, in requests, once.

    Counted in requests, rounded up, and at most a whole new burst: a bucket can be empty, but not emptier. So
    a change gives nobody a second burst, and nobody waits for longer than the new limit makes anybody wait.

    Args:
        arrival_at: the arrival time under the old limit.
        now: the instant of the change.
        old: the limit that ``arrival_at`` was stored under.
        new: the limit from now on.

    Returns:
        The arrival time under the new limit.
    """
    if arrival_at <= now:
        return arrival_at
    owed = -(-(arrival_at - now) * new.interval // old.interval)
    return now + min(owed, new.burst * new.interval)
