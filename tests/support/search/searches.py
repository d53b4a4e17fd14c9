"""A space, objectives, and searches over them."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna

from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.config.search_sections import SearchSettings
from study.records.objectives import Objective
from study.search.search_task import SearchTask
from study.search.study_search import Proposal, StudySearch

OBJECTIVES = (Objective("perplexity", "minimize", 12.0), Objective("train_tokens_per_second", "maximize", 1.0))
SPACE = parse_space(
    {
        "precision": {"choice": ["bf16", "nf4"]},
        "rank": {"choice": [4, 16]},
        "target_modules": {"choice": ["q_v", "all_linear"]},
        "lora_alpha": {"rank_times": 2},
        "lora_dropout": {"choice": [0.0, 0.1], "when": {"precision": "nf4"}, "otherwise": 0.05},
        "learning_rate": {"log_float": [1e-5, 1e-3]},
    }
)


def search_task(algorithm: str = "grid", **changes: Any) -> SearchTask:
    """A search over the space; changes are of the task, or of its settings."""
    settings = {"algorithm": algorithm, "trials": 10, "seed": 0}
    names = {field.name for field in fields(SearchSettings)}
    settings |= {name: changes.pop(name) for name in names & set(changes)}
    task = {"name": "study", "space": SPACE, "seeds": (3,), "objectives": OBJECTIVES, **changes}
    return SearchTask(settings=SearchSettings(**settings), **task)


def search_in(folder: Path, algorithm: str = "grid", **changes: Any) -> StudySearch:
    """That search in a folder's database."""
    return StudySearch(folder / "optuna.db", search_task(algorithm, **changes))


def ask_all(search: StudySearch, *precisions: str) -> list[Proposal]:
    """Everything that is left to ask for, precision after precision."""
    return [proposal for one in precisions for proposal in iter(lambda one=one: search.ask(one), None)]


def values_of(config: TrialConfig) -> tuple[float, float]:
    """A perplexity, best at a learning rate of 2e-4, and tokens a second."""
    return 10 - config.rank / 4 + abs(math.log(config.learning_rate / 2e-4)), 100 / len(config.target_modules)


def optuna_study(folder: Path) -> optuna.Study:
    """The folder's database as Optuna reads it."""
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder / 'optuna.db'}")


def trial_names(count: int) -> list[str]:
    """`t000`, `t001`, …"""
    return [f"t{number:03}" for number in range(count)]
