"""Programs that show Perdure at work; each folder is one example and has its own README."""
