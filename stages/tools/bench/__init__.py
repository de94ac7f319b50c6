"""`make bench`: training by this project against training by notebook, side by side. No stage of the pipeline."""
