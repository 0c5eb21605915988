"""Checkpoints: read and checked, predicted with, and in the layout of Hugging Face."""
