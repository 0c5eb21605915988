"""Fetching public files: where they are, how they come whole, and what is packed."""
