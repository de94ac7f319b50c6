"""Sources of labelled images, and the arrays made of them."""
