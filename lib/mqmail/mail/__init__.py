"""Pure values and rules of mail. Imports no os, sys, socket, select, time or asyncio."""
