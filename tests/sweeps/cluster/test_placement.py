"""Which machine measures which cell: blocks stay on one machine, lost cells go to another."""

from __future__ import annotations

from crossbench.sweeps.cluster.placement import Placement


def test_without_repeats_each_idle_machine_gets_the_next_cell() -> None:
    placement = Placement([[0], [1], [2]], tries=2)
    assert [placement.next("a"), placement.next("b"), placement.next("a")] == [0, 1, 2]
    assert placement.next("b") is None
    assert placement.waiting == []


def test_a_block_stays_on_its_machine() -> None:
    placement = Placement([[0, 1], [2, 3], [4, 5]], tries=2)
    assert [placement.next("a"), placement.next("b")] == [0, 2]
    assert [placement.next("b"), placement.next("a")] == [3, 1]
    assert placement.next("c") == 4
    assert placement.next("a") is None  # the last block belongs to c
    assert placement.next("c") == 5


def test_a_lost_cell_and_the_rest_of_its_block_go_to_another_machine() -> None:
    placement = Placement([[0, 1, 2], [3]], tries=2)
    assert placement.next("a") == 0
    assert placement.next("a") == 1
    assert placement.lose(1, "a")
    assert placement.next("a") == 3  # it is back, but leaves the cell to others
    assert placement.next("a") is None
    assert [placement.next("b"), placement.next("b")] == [1, 2]


def test_a_machine_alone_tries_its_lost_cell_again() -> None:
    placement = Placement([[0]], tries=2)
    placement.next("a")
    assert placement.lose(0, "a")
    assert placement.next("a", others=False) == 0
    assert not placement.lose(0, "a")  # the second try was the last one
    assert placement.waiting == []


def test_the_blocks_of_a_machine_that_is_gone_are_free() -> None:
    placement = Placement([[0, 1]], tries=2)
    placement.next("a")
    assert placement.next("b") is None
    placement.keep_only({"b"})
    assert placement.next("b") == 1


def test_a_job_takes_a_whole_block_and_gives_back_what_it_did_not_begin() -> None:
    placement = Placement([[0, 1, 2], [3]], tries=2)
    assert placement.next_unit() == [0, 1, 2]
    assert placement.next_unit() == [3]
    assert placement.next_unit() == []
    placement.give_back([2])
    assert placement.lose(1, "job")
    assert placement.next_unit() == [1, 2]
    assert placement.give_up() == []


def test_cells_that_no_machine_has_can_be_given_up() -> None:
    placement = Placement([[0, 1], [2]], tries=1)
    placement.next("a")
    assert placement.give_up() == [1, 2]
    assert placement.waiting == []
