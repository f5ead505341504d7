"""An order pipeline, fed by a file of webhooks."""
