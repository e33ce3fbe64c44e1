"""The Perdure server: what operators run. `app.py` composes it; `core/` holds the rules; `engine/` runs them."""
