"""What xmtpd lets in: rules over what is known of a session."""
