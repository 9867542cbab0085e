"""mqmail: one queue that speaks one protocol."""
