"""How one trial runs: base models, packed adapters, and what is measured on them."""
