"""A space of 18 configurations, and the same with a range of learning rates."""

from __future__ import annotations

from search_spaces.parameters import parse_space

SMALL = parse_space(
    {
        "precision": {"choice": ["bf16", "nf4"]},
        "rank": {"int": [2, 4]},
        "target_modules": {"choice": ["q_v", "all_linear"]},
        "lora_alpha": {"rank_times": 2},
        "lora_dropout": {"choice": [0.0, 0.1], "when": {"precision": "nf4"}, "otherwise": 0.05},
        "learning_rate": 2e-4,
    }
)
WIDE = parse_space({**SMALL.to_mapping(), "learning_rate": {"log_float": [1e-5, 1e-3]}})
