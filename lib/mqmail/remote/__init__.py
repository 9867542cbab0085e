"""Talking to other hosts: what mq-rspawn's workers and the command mq-remote share."""
