"""Several nodes on one database: who owns what, and how nodes reach each other.

Nothing is imported here: a server that has its database for itself starts without most of it.
"""
