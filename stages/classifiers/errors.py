"""Errors of the classifiers whose message is written for the user."""


class ClassifierError(Exception):
    """Something a user can mend: settings that do not fit, weights that cannot be had. The message is one line."""
