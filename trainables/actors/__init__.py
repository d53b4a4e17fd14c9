"""Ray's actors: trials, hosts of a base model, and their keeper."""
