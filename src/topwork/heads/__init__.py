"""Heads: small classifiers on a backbone's features. Read `head` first."""
