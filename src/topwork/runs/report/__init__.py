"""The HTML pages of a run's report and of an audit. Read `content` first."""
