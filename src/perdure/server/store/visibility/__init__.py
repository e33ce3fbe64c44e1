"""The list filter language: parsed here, translated to SQL by each store."""
