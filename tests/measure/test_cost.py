"""What a throughput means for a day and for a bill."""

from __future__ import annotations

import pytest

from crossbench.errors import ConfigError
from crossbench.measure.cost import throughput_costs
from crossbench.settings.cell_settings import check_settings
from tests.helpers.plans import config_of


def test_the_cost_of_a_million_is_the_price_of_the_time_that_it_takes() -> None:
    found = throughput_costs({"throughput/pairs_per_s": 100.0}, "pairs", price_per_hour=1.8)
    assert found == {
        "throughput/million_pairs_per_day": pytest.approx(8.64),
        "cost/per_million_pairs": pytest.approx(5.0),  # 10,000 s are 2.78 h
    }


def test_without_a_price_there_is_no_cost_and_without_a_throughput_nothing() -> None:
    found = throughput_costs({"throughput/texts_per_s": 100.0}, "texts", price_per_hour=None)
    assert list(found) == ["throughput/million_texts_per_day"]
    assert throughput_costs({"throughput/pairs_per_s": 1.0}, "texts", price_per_hour=1.0) == {}


@pytest.mark.parametrize("price", ["0", "-1", "true", "cheap", "inf", "nan"])
def test_a_wrong_price_is_refused(price: str) -> None:
    with pytest.raises(ConfigError, match=r"cost\.per_hour must be the positive price of an hour"):
        check_settings(config_of(f"cost.per_hour={price}").document)
    assert check_settings(config_of("cost.per_hour=1.2").document).price_per_hour == 1.2
