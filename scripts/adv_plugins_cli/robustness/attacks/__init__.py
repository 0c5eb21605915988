"""Attacks on text: what they change (typos, synonyms), whom they ask (a victim), how they search."""
