"""`topwork serve`: a run behind HTTP. Start reading at `running.py`, then `app.py`, `api.py` and `work.py`."""
