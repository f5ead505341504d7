"""Documents of many tenants through one pipeline: nobody waits for somebody else's flood."""
