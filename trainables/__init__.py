"""How one trial runs: base models, packed adapters, and what is measured on them."""

import warnings

# The package `pynvml` warns of its own name wherever its module is imported, and torch imports it: nobody else can act.
warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
