"""What a study means: its front, its tables, its figures, its report."""
