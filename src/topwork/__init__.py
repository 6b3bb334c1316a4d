"""Topwork."""
