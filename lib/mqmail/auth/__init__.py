"""Logins: who says that they are true, and how often they may be tried. mq-auth and mq-passwd."""
