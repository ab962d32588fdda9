"""Requests that the server rejects show that an open loop is more than it can do."""

from crossbench.load.saturation import REJECTED, rejected_share, rejection_reason
from crossbench.types import RequestRecord
from tests.helpers.records import record


def test_more_than_five_percent_rejected_is_over_saturation() -> None:
    def records(rejected: int) -> list[RequestRecord]:
        return [
            record(i, i + 0.1, index=i, status=REJECTED if i < rejected else "OK")
            for i in range(100)
        ]

    assert rejected_share(records(7)) == 0.07
    assert rejection_reason(records(7)) == (
        "the server rejected 7 % of the 100 requests, because its queue was full."
    )
    assert rejection_reason(records(5)) == ""
    assert rejection_reason([]) == ""
    other = [record(i, i + 0.1, status="DEADLINE_EXCEEDED") for i in range(10)]
    assert rejection_reason(other) == ""
