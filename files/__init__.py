"""The ground floor, which knows none of the other folders: errors, files replaced at once, addresses."""
