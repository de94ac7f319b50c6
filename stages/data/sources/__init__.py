"""Where images come from: only `download` and `prepare` read this (and the drawings among the OOD images)."""
