"""Sources of labelled pictures, and the arrays made of them."""
