"""What a study means: its front, its figures, its report. (no torch, no ray)"""
