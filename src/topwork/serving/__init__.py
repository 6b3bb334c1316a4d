"""An HTTP server for trained classifiers, with a page to try them. Read `app.py` first."""
