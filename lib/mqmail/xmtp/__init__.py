"""The protocol core: SMTP, LMTP and XMQ, server and client, without I/O."""
