"""Wrong values of what is searched: each gives one fault with key, value, rule and remedy, and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.study_files import (
    ABSENT,
    holds_one_fault,
)

CONDITIONAL = {"choice": [0.1], "when": {"precision": "nf4"}}
TOO_MANY = {"search.algorithm": "grid", "space.lora_alpha": {"choice": list(range(1, 201))}}  # with seven of another
DROPOUTS = {"choice": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
SEARCH = {"algorithm": "tpe", "trials": 4}
Q_V = {"target_modules": "q_v"}
POINT, OTHER = {"precision": "nf4", "rank": 8, **Q_V}, {"precision": "fp16", "rank": 8, **Q_V}

# Each: what is changed in a good study, the key blamed, words of the rule, words of the remedy.
WRONG: list[tuple[dict[str, Any], str, str, str]] = [
    # space
    ({"space": ABSENT}, "space", "must be given", "`space: search_spaces/paper_grid.yaml`"),
    ({"space": 3}, "space", "a path, or parameters", "search_spaces/paper_grid.yaml"),
    ({"space": ["rank"]}, "space", "a path, or parameters", "search_spaces/paper_grid.yaml"),
    ({"space": "nowhere.yaml"}, "space", "a file that is there; looked for", "Check its path"),
    ({"space": "x" * 3000}, "space", "a file that is there", "Check its path"),
    ({"space.rank": ABSENT}, "space.rank", "must be given", "`rank: {choice: [8, 64]}`"),
    ({"space.rank": 0}, "space.rank", "integer from 1 to 1024", "`rank: {choice: [8, 64]}`"),
    ({"space.rnk": 8}, "space.rnk", "no parameter of a trial", "Did you mean `rank`?"),
    ({"space.seed": 8}, "space.seed", "no parameter of a trial", "`seeds: [0, 1]`"),
    ({"space.rank": {"choose": [8]}}, "space.rank.choose", "no form of a parameter", "Did you mean `choice`?"),
    ({"space.rank": {"choice": [8, "x"]}}, "space.rank.choice.1", "integer from 1", "{choice: [8, 64]}"),
    ({"space.lora_dropout": CONDITIONAL}, "space.lora_dropout.otherwise", "where its condition", "otherwise: 0.05"),
    ({"space.lora_alpha": {"rank_times": 2000}}, "space.lora_alpha.rank_times", "at most 65536", "{rank_times: 2}"),
    ({"space.precision": "int8"}, "space.precision", "one of fp32, bf16, fp16, nf4", "{choice: [fp16, nf4]}"),
    # search
    ({"search": []}, "search", "keys and values", "below `search`"),
    ({"search": None}, "search", "keys and values", "leave it out"),
    ({"search.algorithm": "bayes"}, "search.algorithm", "one of grid, random, tpe, nsga2, gp", "`algorithm: grid`"),
    ({"search.algorithm": "TPE", "search.trials": 9}, "search.algorithm", "one of grid", "Did you mean `tpe`?"),
    ({"search.algorithm": "nsga-ii"}, "search.algorithm", "one of grid", "Did you mean `nsga2`?"),
    ({"search.algorithm": "tpe"}, "search.trials", "must be given", "`trials: 24`"),
    ({"search.algorithm": "random", "search.trials": None}, "search.trials", "must be given", "`trials: 24`"),
    ({"search.trials": 7}, "search.trials", "at least 8, the space's configurations", "`algorithm: random`"),
    ({"search.trials": 0}, "search.trials", "from 1 to 10,000", "`trials: 24`"),
    ({"search.trials": True}, "search.trials", "whole number", "`trials: 24`"),
    ({"search.seed": -1}, "search.seed", "from 0 to 2,147,483,647", "`seed: 0`"),
    ({**TOO_MANY, "space.lora_dropout": DROPOUTS}, "search.algorithm", "11,200", "`algorithm: tpe`"),
    (
        {**TOO_MANY, "seeds": list(range(7))},
        "search.algorithm",
        "the seeds are 11,200",
        "`algorithm: tpe`",
    ),
    ({"search.trails": 9}, "search.trails", "no key of search", "Did you mean `trials`?"),
    # seeds
    ({"seeds": 0}, "seeds", "list of 1 to 100 whole numbers", "`seeds: [0]`"),
    ({"seeds": []}, "seeds", "list of 1 to 100", "`seeds: [0]`"),
    ({"seeds": list(range(101))}, "seeds", "list of 1 to 100", "`seeds: [0]`"),
    ({"seeds": [0, 1, 0]}, "seeds.2", "must differ", "Leave it out"),
    ({"seeds": [0, True]}, "seeds.1", "whole number", "`seeds: [0]`"),
    ({"seeds": [0, 1.0]}, "seeds.1", "whole number", "`seeds: [0]`"),
    ({"seeds": [2**31]}, "seeds.0", "to 2,147,483,647", "`seeds: [0]`"),
    # what a search begins with
    ({"search": {**SEARCH, "try_first": 3}}, "search.try_first", "list of 0 to 10,000 configurations", "rank: 16"),
    (
        {"search": {**SEARCH, "try_first": [{**POINT, "rank": 9}]}},
        "search.try_first.0.rank",
        "8, 64",
        "widen the space",
    ),
    (
        {"search": {**SEARCH, "try_first": [{"rank": 8, **Q_V}]}},
        "search.try_first.0.precision",
        "must be given",
        ": fp16",
    ),
    ({"search": {**SEARCH, "try_first": [POINT, POINT]}}, "search.try_first.1", "must differ", "Leave it out"),
    ({"search": {**SEARCH, "try_first": [POINT], "trials": 0}}, "search.trials", "from 1 to", "trials: 24"),
    ({"search": {**SEARCH, "warm_start": "runs/a"}}, "search.warm_start", "list of 0 to 100 study", "[runs/earlier]"),
    ({"search": {**SEARCH, "warm_start": [""]}}, "search.warm_start.0", "text of 1 to", ""),
    ({"search": {"warm_start": ["a"]}}, "search.warm_start", "is for a search; a grid", "`algorithm: tpe`"),
    ({"search": {"try_first": [POINT]}}, "search.try_first", "is for a search; a grid", "`algorithm: tpe`"),
    ({"search": {**SEARCH, "trials": 1, "try_first": [POINT, OTHER]}}, "search.trials", "at least 2", "Raise it"),
    # confirm
    ({"confirm": {"seeds": []}}, "confirm.seeds", "list of 1 to 100 whole", "[101, 102, 103]"),
    ({"confirm": {"seeds": [5, 0]}}, "confirm.seeds.1", "must differ from the study's seeds", "not trained with"),
    ({"confirm": {"alone": True}}, "confirm.alone", "no key of confirm", "Known are seeds"),
    # early stopping
    ({"early_stopping.algorithm": "median"}, "early_stopping.algorithm", "one of none, pareto", "`algorithm: none`"),
    ({"early_stopping.algorithm": "pareto"}, "early_stopping.algorithm", "asha", "Did you mean `pareto_halving`?"),
    ({"early_stopping.rungs": 0.5}, "early_stopping.rungs", "list of 1 to 20 numbers", "`rungs: ["),
    ({"early_stopping.rungs": []}, "early_stopping.rungs", "list of 1 to 20 numbers", "`rungs: ["),
    ({"early_stopping.rungs": [0.1, 1]}, "early_stopping.rungs.1", "above 0, under 1", "`rungs: ["),
    ({"early_stopping.rungs": [0.1, 0.1]}, "early_stopping.rungs.1", "must differ", "Leave it out"),
    ({"early_stopping.rungs": [0.5, 0.25]}, "early_stopping.rungs", "must go upward", "`rungs: [0.25, 0.5]`"),
    ({"early_stopping.keep_fraction": 0}, "early_stopping.keep_fraction", "above 0, at most 1", "`keep_fraction: 0."),
    ({"early_stopping.grace_steps": -1}, "early_stopping.grace_steps", "from 0 to", "`grace_steps: 0`"),
    ({"early_stopping.strata": 0}, "early_stopping.strata", "from 1 to 100", "`strata: 3`"),
    ({"early_stopping.stratum_fraction": 1.5}, "early_stopping.stratum_fraction", "at most 1", "`stratum_fraction: 0."),
    ({"early_stopping.grace": 1}, "early_stopping.grace", "no key of early_stopping", "Did you mean"),
    ({"early_stopping.algorithm": None}, "early_stopping.algorithm", "one of none", "Did you mean `none`?"),
]


@pytest.mark.parametrize(
    ("changes", "key", "rule", "remedy"), WRONG, ids=[f"{n}-{key}" for n, (_, key, *_) in enumerate(WRONG)]
)
def test_one_fault(
    changes: dict[str, Any], key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holds_one_fault(tmp_path, changes, key, rule, remedy, capsys)
