"""The files of one recipient: instructions, Maildir, mbox and programs. Runs as that user."""
