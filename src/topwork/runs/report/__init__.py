"""The report and the audit as pages. Read `content` first."""
