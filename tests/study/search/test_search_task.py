"""What a search consists of."""

from __future__ import annotations

import pytest

from tests.support.search.searches import SPACE, search_task


def test_a_search_without_a_number_of_trials_is_refused() -> None:
    with pytest.raises(ValueError, match="trials must say how many configurations tpe tries; it is 0"):
        search_task("tpe", trials=0)
    assert search_task("grid", trials=0).settings.trials == 0


def test_a_database_notes_what_is_tried_first_only_where_something_is() -> None:
    first = SPACE.grid([3])[0]
    plain = {"space": SPACE.to_mapping(), "algorithm": "tpe", "trials": 10, "seed": 0, "seeds": [3]}
    assert search_task("tpe").to_mapping() == plain
    assert search_task("tpe", try_first=(first,)).to_mapping() == {**plain, "try_first": [first.to_dict()]}
