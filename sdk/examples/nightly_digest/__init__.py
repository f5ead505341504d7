"""A mail every morning to each user with news: cron, fan-out, batch."""
