"""The machine: failures, program start, logging, files, sockets. Knows nothing of mail."""
