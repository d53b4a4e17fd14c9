"""What a study continues from: the checkpoints of its trials, and the basis that must be as it was."""
