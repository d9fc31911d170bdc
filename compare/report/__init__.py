"""Reports: what was found, for a terminal, a browser, a pull request and machines."""
