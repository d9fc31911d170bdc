"""Reports: the findings, for a terminal, a browser, a pull request and machines."""
