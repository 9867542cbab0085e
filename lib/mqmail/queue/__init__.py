"""Our files: ids, records and the queue directories."""
