"""The small classifiers that are grafted onto a backbone's features."""
