"""What surrounds a study: installed packages, the doctor, and the provenance of its numbers."""
