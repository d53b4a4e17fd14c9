"""Tables of a study, each with its caption, for report, notebook and CSV alike."""
