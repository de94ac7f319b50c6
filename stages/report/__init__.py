"""What people read: the comparison and the claims, from templates, every figure from the stages' JSON and CSV."""
