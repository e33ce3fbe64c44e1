"""How calls arrive. Front ends decode and encode; no rule of the engine lives here."""
