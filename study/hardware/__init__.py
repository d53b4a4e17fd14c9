"""What a study runs on: this machine, the catalogue of cards, the target of a plan, and its calibration."""
