"""Runs over HTTP, and a page to try them: thin over `Classifier`. Start reading at `app.py`."""
