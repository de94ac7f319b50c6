"""`make bench`: training by this project against a baseline, and what a prediction costs. No stage of the pipeline."""
