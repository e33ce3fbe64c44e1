"""The command line: one file per command group. It turns arguments into settings and must never hold a rule."""
