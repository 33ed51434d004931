"""The catalog for a browser: plain pages from the server, readable without scripts, styles in one small file."""
