"""Doors into training frameworks: a file or folder for each, which nothing but the command line imports."""
