"""Measurements; nothing here is installed. See CONTRIBUTING.md, "Measuring"."""
