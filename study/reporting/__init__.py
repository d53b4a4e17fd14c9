"""A study's results in words and pages: comparison, summary, budget card, live report, PDF."""
