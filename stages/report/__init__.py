"""What people read: the comparison and the claims, in Markdown, every number from the stages' JSON and CSV."""
