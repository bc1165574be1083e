"""What leaderboard.html consists of: its parts in Python, its templates, its style and its script."""
