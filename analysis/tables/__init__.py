"""Tables that answer a study's questions, each with its caption, for report, notebook and CSV alike."""
